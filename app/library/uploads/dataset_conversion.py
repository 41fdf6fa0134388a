"""One check of every upload: each row is read, each picture decoded once, then all are stored.

What passes is written as one Parquet file in the Hugging Face image layout, whatever the source
was, so that trainings, demonstrations and evaluations read one layout and meet no surprise.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from app.core.errors import InvalidDatasetError, InvalidImageError, TooLargeError
from app.core.pictures import PictureLimits, check_picture
from app.core.pixels import PIXELS_VERSION, decode, pixel_digest
from app.core.splits import TRAIN
from app.library.records import DatasetReport
from vlibrary_client.errors import InvalidDatasetError as ReadError
from vlibrary_client.layouts.items import BadItem, Item, Source
from vlibrary_client.layouts.packing import FIELDS, Row, row_of, write_rows
from vlibrary_client.layouts.pictures import PICTURE_COLUMNS

MAX_ITEMS: Final = 1_000_000
MAX_CHARACTERS: Final = 200_000_000
MAX_SPLITS: Final = 100
NUM_SHOWN: Final = 10
BATCH_ROWS: Final = 64
BATCH_BYTES: Final = 4 << 20
_PICTURE_COLUMNS: Final = ", ".join(PICTURE_COLUMNS)
PIXELS_KEY: Final = b"vlibrary.pixels"
SCHEMA: Final = pa.schema(
    [*FIELDS, ("pixels", pa.string())],
    metadata={PIXELS_KEY: str(PIXELS_VERSION)},
)


@dataclass(kw_only=True)
class _Conversion:
    """One source on its way into a file: its rows, and what was counted and refused of them."""

    source: Source
    target: Path
    most_bytes: int | None
    limits: PictureLimits
    text_only: bool
    num_rows: int = 0
    num_items: int = 0
    num_text_only: int = 0
    num_without: int = 0
    num_bad: int = 0
    num_characters: int = 0
    num_animated: int = 0
    num_turns: int = 0
    bad: list[dict[str, str]] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    answers: set[int] = field(default_factory=set)
    # Pixel digests by digest of a picture's file, or why that cannot be used.
    pixels: dict[bytes, bytes | str] = field(default_factory=dict)
    # What pictures are called, by their pixel digests.
    names: dict[bytes, str] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """The rows of all items, each with the digest of what its picture shows."""
        for found in self.source.found:
            self.num_rows += 1
            if self.num_rows > MAX_ITEMS:
                raise InvalidDatasetError(f"Not a data set: it has more than {MAX_ITEMS} rows")
            self._require_room()
            if isinstance(found, BadItem):
                self._refuse(found.place, found.reason)
                continue
            pixels = None if found.image is None else self._pixels_of(found.image)
            if isinstance(pixels, str):
                self._refuse(found.place, pixels)
                continue
            if pixels is None:
                self.num_without += 1
                self.without += [found.place] if len(self.without) < NUM_SHOWN else []
                if not self.text_only:
                    continue
                self.num_text_only += 1
            self._count(found)
            row = row_of(found)
            if pixels is not None:
                # Equal for rows that show the same, whatever they call it.
                name = found.image_id or pixels.hex()[:32]
                row["image_id"] = self.names.setdefault(pixels, name)
                row["pixels"] = pixels.hex()
            yield row

    def _require_room(self) -> None:
        # Each row is written with its picture, so a file that names one often unfolds.
        if self.most_bytes is not None and self.target.stat().st_size > self.most_bytes:
            raise TooLargeError(
                f"The data set would be stored in more than {self.most_bytes} bytes, with a "
                "picture for every row"
            )

    def _refuse(self, place: str, reason: str) -> None:
        self.num_bad += 1
        if len(self.bad) < NUM_SHOWN:
            self.bad.append({"place": place, "reason": reason})

    def _pixels_of(self, data: bytes) -> bytes | str:
        """The digest of what a picture shows, or why it cannot be used; each is looked at once."""
        digest = hashlib.sha256(data).digest()
        if digest not in self.pixels:
            try:
                self.num_animated += check_picture(data, self.limits)
                self.pixels[digest] = bytes.fromhex(pixel_digest(decode(data)))
            except InvalidImageError as error:
                self.pixels[digest] = error.message
        return self.pixels[digest]

    def _count(self, item: Item) -> None:
        self.num_items += 1
        self.num_characters += len(item.question) + sum(map(len, item.answers))
        if self.num_characters > MAX_CHARACTERS:
            raise InvalidDatasetError(
                f"Not a data set: its texts have more than {MAX_CHARACTERS} characters"
            )
        self.splits[item.split or ""] += 1
        if len(self.splits) > MAX_SPLITS:
            raise InvalidDatasetError(f"Not a data set: it has more than {MAX_SPLITS} splits")
        self.answers.update(map(hash, item.answers))
        self.num_turns += ", question " in item.place

    def require_all(self) -> None:
        """Returns when every row that was read can be used.

        Raises:
            InvalidDatasetError: Some cannot.
        """
        problems = []
        if self.num_bad:
            shown = "; ".join(f"{row['place']}: {row['reason']}" for row in self.bad[:3])
            more = " and others" if self.num_bad > len(self.bad[:3]) else ""
            problems.append(f"{self.num_bad} of {self.num_rows} rows cannot be used: {shown}{more}")
        if self.num_without and not self.text_only:
            problems.append(
                f"{self.num_without} of {self.num_rows} rows have no picture, the first is "
                f"{self.without[0]}; pictures are looked for in {_PICTURE_COLUMNS}, or where a map "
                "such as image=COLUMN says; text_only takes such rows as items of text alone"
            )
        if problems:
            if self.num_items:
                problems.append("skip_bad leaves such rows out")
            raise InvalidDatasetError(
                f"Not a data set ({self.source.layout}): {'; '.join(problems)}",
                details={
                    "layout": self.source.layout,
                    "rows": self.num_rows,
                    "bad_rows": [dict(row) for row in self.bad],
                    "num_bad": self.num_bad,
                    "num_without_picture": self.num_without,
                },
            )

    def report(self) -> DatasetReport:
        """What was found.

        Raises:
            InvalidDatasetError: There is nothing to use.
        """
        if not self.num_items:
            left_out = f"; all of its {self.num_rows} rows are left out" if self.num_rows else ""
            raise InvalidDatasetError(
                f"Not a data set ({self.source.layout}): it has no items{left_out}"
            )
        named = {name: count for name, count in self.splits.items() if name}
        if named and self.splits[""]:
            named[TRAIN] = named.get(TRAIN, 0) + self.splits[""]
        notes = (
            (self.num_animated, "pictures are animated, of which the first frame is taken"),
            (self.num_turns, "items are questions of longer conversations, each asked alone"),
        )
        without = [] if self.text_only else self.without
        rows_left_out = [
            *self.bad,
            *({"place": one, "reason": "it has no picture"} for one in without),
        ]
        return DatasetReport(
            layout=self.source.layout,
            num_items=self.num_items,
            num_images=len(self.names),
            num_text_only=self.num_text_only,
            num_answers=len(self.answers),
            splits=named,
            num_skipped=self.num_bad + (0 if self.text_only else self.num_without),
            bad_rows=tuple(rows_left_out[:NUM_SHOWN]),
            notes=(*self.source.notes, *(f"{count} {text}" for count, text in notes if count)),
        )


def convert(
    opened: Callable[[], Source],
    target: Path,
    *,
    limits: PictureLimits,
    skip_bad: bool = False,
    text_only: bool = False,
    most_bytes: int | None = None,
) -> DatasetReport:
    """Writes a source's items to one Parquet file, after every row and picture was looked at.

    Args:
        opened: `open_source` or `open_upload` of what is to be read.
        target: Where the file goes.
        limits: What a picture may be, as for requests.
        skip_bad: Leave out rows that cannot be used, rather than refuse the data set.
        text_only: Take rows without a picture as items of text alone.
        most_bytes: Where to stop writing, but for the rows of one batch.

    Raises:
        InvalidDatasetError: Rows cannot be used, with how many and the first of them; or there is
            nothing to use.
        TooLargeError: It takes more than that.
    """
    layout = "unknown layout"
    try:
        source = opened()
        layout = source.layout
        work = _Conversion(
            source=source, target=target, most_bytes=most_bytes, limits=limits, text_only=text_only
        )
        write_rows(work.rows(), target, schema=SCHEMA, most_rows=BATCH_ROWS, most_bytes=BATCH_BYTES)
        if not skip_bad:
            work.require_all()
        return work.report()
    except ReadError as error:
        raise InvalidDatasetError(f"Not a data set ({layout}): {error.message}") from error
