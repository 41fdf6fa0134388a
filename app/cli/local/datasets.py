"""Local data sets for commands that need no server: converted as an upload is, then read."""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from app.cli.console import harmless, plain_console
from app.cli.options import read_settings, refuse_given
from app.core.errors import InvalidInputError, StorageFullError, is_out_of_space
from app.core.splits import TRAIN

if TYPE_CHECKING:
    from app.library.records import DatasetReport
    from app.method.backbone.examples import Example
    from vlibrary_client.layouts.items import Found, Source

_READING: Final = "reading every row and picture"
_OF_CONVERSION: Final = {"column_map", "question", "skip_bad", "text_only"}

ColumnMap: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--map", help="Which column is which: question=COLUMN; may be repeated."),
]
Question: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What is asked about every picture, where there are labels alone."),
]
SkipBad: TypeAlias = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out rows that cannot be used.")
]
TextOnly: TypeAlias = Annotated[
    bool, typer.Option("--text-only", help="Take rows without a picture as text alone.")
]


def read_map(pairs: list[str] | None, question: str | None = None) -> Mapping[str, str]:
    """Which column is which, from texts such as `question=problem`, or what is asked throughout.

    Raises:
        InvalidInputError: A text is no such pair, or something is told twice.
    """
    from vlibrary_client.layouts.items import with_question

    columns = {}
    for pair in pairs or ():
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise InvalidInputError(f"Cannot read the map: wanted question=COLUMN, found {pair}")
        if name in columns:
            raise InvalidInputError(f"Cannot read the map: {name} is mapped twice")
        columns[name] = column
    if question is not None and "question" in columns:
        raise InvalidInputError("Wanted a column of questions or one question for all, found both")
    return with_question(columns, question)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the block, in which data sets are read.

    Raises:
        StorageFullError: There is no room; which folder has none and how to name another is told.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="vlibrary-") as folder:
            yield Path(folder)
    except Exception as error:
        if not is_out_of_space(error):
            raise
        raise StorageFullError(
            f"There is no room left in {tempfile.gettempdir()} to read a data set; TMPDIR names "
            "another folder"
        ) from error


def is_converted(source: str) -> bool:
    """Whether a local source is read by its columns, and not in a layout that is known for good."""
    from app.method.evaluation.tasks.loading import find_official

    return source != "easy-vqa" and find_official(source) is None


def convert_local(
    source: str,
    target: Path,
    *,
    columns: Mapping[str, str],
    skip_bad: bool = False,
    text_only: bool = False,
) -> "DatasetReport":
    """What a local source holds, written to `target` as it would be stored; tells how far it is.

    Raises:
        InvalidDatasetError: It is no data set, or has rows that cannot be used.
    """
    from app.core.pictures import PictureLimits
    from app.library.uploads.dataset_conversion import convert
    from vlibrary_client.layouts.sources import open_source

    with plain_console(stderr=True).status(_READING) as status:

        def counted(found: "Iterator[Found]") -> "Iterator[Found]":
            for number, one in enumerate(found, start=1):
                status.update(f"{_READING}: {number:,}")
                yield one

        def opened() -> "Source":
            known = open_source(source, columns=columns)
            return replace(known, found=counted(known.found))

        return convert(
            opened,
            target,
            # Of the settings limits count alone, and nobody needs a home for them.
            limits=PictureLimits.of(read_settings(data_dir=target.parent)),
            skip_bad=skip_bad,
            text_only=text_only,
        )


def remarks(report: "DatasetReport") -> list[str]:
    """What a user should hear of a data set that can be used, for a terminal."""
    left_out = [f"left out, {row['place']}: {row['reason']}" for row in report.bad_rows]
    if (unnamed := report.num_skipped - len(left_out)) > 0:
        left_out.append(f"left out, {unnamed} more")
    return [harmless(note) for note in (*report.notes, *left_out)]


def refuse_unread(context: typer.Context, *sources: str) -> None:
    """Returns when an option that tells how sources are converted has one that is.

    Raises:
        BadParameter: It has none, and would be passed over.
    """
    if not any(map(is_converted, sources)):
        refuse_given(context, _OF_CONVERSION, f"is not for {' and '.join(sources)}")


def named_alike(pool: "list[Example]", examples: "list[Example]") -> "list[Example]":
    """The pool, where pictures that the examples show as well are called what they call them."""
    names = {
        one.image.pixel_digest: one.image_id
        for one in examples
        if one.image is not None and one.image.pixel_digest is not None
    }
    return [
        replace(item, image_id=names[item.image.pixel_digest])
        if item.image is not None and item.image.pixel_digest in names
        else item
        for item in pool
    ]


def load_local(
    source: str,
    *,
    split: str | None,
    limit: int | None,
    seed: int,
    columns: Mapping[str, str],
    skip_bad: bool = False,
    text_only: bool = False,
) -> "list[Example]":
    """The items of a local source; see `load_examples` and `convert_local`.

    What is left out, or noticed, is told on standard error.

    Raises:
        InvalidDatasetError: It is no data set, has rows that cannot be used, or no such split.
        StorageFullError: There is no room for it among temporary files.
    """
    from app.method.evaluation.tasks.loading import load_examples

    with temporary_folder() as folder:
        if not is_converted(source):
            with plain_console(stderr=True).status(f"reading {source}"):
                return load_examples(source, split=split, limit=limit, seed=seed)
        target = folder / "dataset.parquet"
        report = convert_local(
            source, target, columns=columns, skip_bad=skip_bad, text_only=text_only
        )
        notes = remarks(report)
        if split not in {None, TRAIN} and not report.splits:
            notes.append(
                f"it names no splits, so all of its rows are taken as {harmless(split)}, also "
                "those that vectors were trained on"
            )
        for note in notes:
            print(f"vlibrary: {harmless(source)}: {note}", file=sys.stderr)
        return load_examples(str(target), split=split, limit=limit, seed=seed)
