"""One check of every data set, at the door: each row read, each picture decoded once, then stored.

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

from app.core.errors import InvalidDatasetError, InvalidImageError
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
class _Tally:
    layout: str
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

    def refuse(self, item: BadItem) -> None:
        self.num_bad += 1
        if len(self.bad) < NUM_SHOWN:
            self.bad.append({"place": item.place, "reason": item.reason})

    def report(self, *, num_images: int, text_only: bool) -> DatasetReport:
        named = {name: count for name, count in self.splits.items() if name}
        if named and self.splits[""]:
            named[TRAIN] = named.get(TRAIN, 0) + self.splits[""]
        notes = (
            (self.num_animated, "pictures are animated, of which the first frame is taken"),
            (self.num_turns, "items are questions of longer conversations, each asked alone"),
        )
        without = [] if text_only else self.without
        left_out = [*self.bad, *({"place": one, "reason": "it has no picture"} for one in without)]
        return DatasetReport(
            layout=self.layout,
            num_items=self.num_items,
            num_images=num_images,
            num_text_only=self.num_text_only,
            num_answers=len(self.answers),
            splits=named,
            num_skipped=self.num_bad + (0 if text_only else self.num_without),
            bad_rows=tuple(left_out[:NUM_SHOWN]),
            notes=tuple(f"{count} {text}" for count, text in notes if count),
        )


class _Door:
    """Looks at pictures, each once."""

    def __init__(self, limits: PictureLimits) -> None:
        self._limits = limits
        # Pixel digests by digest of the file, or why it cannot be used.
        self._seen: dict[bytes, bytes | str] = {}
        self.names: dict[bytes, str] = {}
        self.num_animated = 0

    def pixels(self, data: bytes) -> bytes:
        """The digest of what a picture shows.

        Raises:
            InvalidImageError: It cannot be used.
        """
        digest = hashlib.sha256(data).digest()
        found = self._seen.get(digest)
        if found is None:
            found = self._seen[digest] = self._look(data)
        if isinstance(found, str):
            raise InvalidImageError(found)
        return found

    def _look(self, data: bytes) -> bytes | str:
        try:
            self.num_animated += check_picture(data, self._limits)
            return bytes.fromhex(pixel_digest(decode(data)))
        except InvalidImageError as error:
            return error.message

    def image_id(self, pixels: bytes, *, given: str | None) -> str:
        """What a picture is called: equal for rows that show the same, whatever they call it."""
        return self.names.setdefault(pixels, given or pixels.hex()[:32])


def convert(
    opened: Callable[[], Source],
    target: Path,
    *,
    limits: PictureLimits,
    skip_bad: bool = False,
    text_only: bool = False,
) -> DatasetReport:
    """Writes a source's items to one Parquet file, after every row and picture was looked at.

    Args:
        opened: `open_source` or `open_upload` of what is to be read.
        target: Where the file goes.
        limits: What a picture may be, as for requests.
        skip_bad: Leave out rows that cannot be used, rather than refuse the data set.
        text_only: Take rows without a picture as items of text alone.

    Raises:
        InvalidDatasetError: Rows cannot be used, with how many and the first of them; or there is
            nothing to use.
    """
    layout = "unknown layout"
    try:
        source = opened()
        layout = source.layout
        door = _Door(limits)
        return _convert(source, target, door=door, skip_bad=skip_bad, text_only=text_only)
    except ReadError as error:
        raise InvalidDatasetError(f"Not a data set ({layout}): {error.message}") from error


def _convert(
    source: Source, target: Path, *, door: _Door, skip_bad: bool, text_only: bool
) -> DatasetReport:
    tally = _Tally(layout=source.layout)
    rows = _rows(source, tally=tally, door=door, text_only=text_only)
    write_rows(rows, target, schema=SCHEMA, most_rows=BATCH_ROWS, most_bytes=BATCH_BYTES)
    tally.num_animated = door.num_animated
    if not skip_bad:
        _require_all(tally, text_only=text_only)
    report = tally.report(num_images=len(door.names), text_only=text_only)
    if not report.num_items:
        left_out = f"; all of its {tally.num_rows} rows are left out" if tally.num_rows else ""
        raise InvalidDatasetError(f"Not a data set ({tally.layout}): it has no items{left_out}")
    return report


def _rows(source: Source, *, tally: _Tally, door: _Door, text_only: bool) -> Iterator[Row]:
    for found in source.found:
        tally.num_rows += 1
        if tally.num_rows > MAX_ITEMS:
            raise InvalidDatasetError(f"Not a data set: it has more than {MAX_ITEMS} rows")
        if isinstance(found, BadItem):
            tally.refuse(found)
            continue
        try:
            pixels = None if found.image is None else door.pixels(found.image)
        except InvalidImageError as error:
            tally.refuse(BadItem(place=found.place, reason=error.message))
            continue
        if pixels is None:
            tally.num_without += 1
            tally.without += [found.place] if len(tally.without) < NUM_SHOWN else []
            if not text_only:
                continue
            tally.num_text_only += 1
        _count(found, tally)
        row = row_of(found)
        if pixels is not None:
            row["image_id"] = door.image_id(pixels, given=found.image_id)
            row["pixels"] = pixels.hex()
        yield row


def _count(item: Item, tally: _Tally) -> None:
    tally.num_items += 1
    tally.num_characters += len(item.question) + sum(map(len, item.answers))
    if tally.num_characters > MAX_CHARACTERS:
        raise InvalidDatasetError(
            f"Not a data set: its texts have more than {MAX_CHARACTERS} characters"
        )
    tally.splits[item.split or ""] += 1
    if len(tally.splits) > MAX_SPLITS:
        raise InvalidDatasetError(f"Not a data set: it has more than {MAX_SPLITS} splits")
    tally.answers.update(map(hash, item.answers))
    tally.num_turns += ", question " in item.place


def _require_all(tally: _Tally, *, text_only: bool) -> None:
    problems = []
    if tally.num_bad:
        shown = "; ".join(f"{row['place']}: {row['reason']}" for row in tally.bad[:3])
        more = " and others" if tally.num_bad > len(tally.bad[:3]) else ""
        problems.append(f"{tally.num_bad} of {tally.num_rows} rows cannot be used: {shown}{more}")
    if tally.num_without and not text_only:
        problems.append(
            f"{tally.num_without} of {tally.num_rows} rows have no picture, the first is "
            f"{tally.without[0]}; pictures are looked for in {_PICTURE_COLUMNS}, or where a map "
            "such as image=COLUMN says; text_only takes such rows as items of text alone"
        )
    if problems:
        raise InvalidDatasetError(
            f"Not a data set ({tally.layout}): {'; '.join(problems)}; "
            "skip_bad leaves such rows out",
            details={
                "layout": tally.layout,
                "rows": tally.num_rows,
                "bad_rows": [dict(row) for row in tally.bad],
                "num_bad": tally.num_bad,
                "num_without_picture": tally.num_without,
            },
        )
