"""Finding the reader for what the caller points at.

Knows names and endings of files.
"""

from pathlib import Path

from app.core.errors import InvalidDatasetError, NotFoundError
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.easy_vqa import load_easy_vqa
from app.method.evaluation.tasks.jsonl import load_jsonl
from app.method.evaluation.tasks.parquet import load_parquet


def load_examples(
    spec: str, *, split: str = "train", limit: int | None = None, seed: int = 0
) -> list[Example]:
    """The items of a data set.

    Args:
        spec: `easy-vqa`, a `.jsonl` or `.parquet` file, or a folder with such files; files of a
            folder whose name starts with the split win over the others.
        split: Which part of it.
        limit: The most items, chosen at random; None takes all.
        seed: Of the choice.

    Raises:
        NotFoundError: There is no such file or folder.
        InvalidDatasetError: It is in no format that is known, or has no items.
        InvalidImageError: A picture cannot be read.
    """
    if spec == "easy-vqa":
        return load_easy_vqa(split=split, limit=limit, seed=seed)
    path = Path(spec)
    if not path.exists():
        raise NotFoundError(f"No such data set: wanted easy-vqa, a file or a folder, found {spec}")
    files = _files_of(path, split)
    if files[0].suffix == ".jsonl":
        examples = load_jsonl(files[0], split=split, limit=limit, seed=seed)
    else:
        examples = load_parquet(files, split=split, limit=limit, seed=seed)
    if not examples:
        raise InvalidDatasetError(f"The data set has no items in split {split}: {spec}")
    return examples


def _files_of(path: Path, split: str) -> list[Path]:
    if path.is_file():
        if path.suffix not in {".jsonl", ".parquet"}:
            raise InvalidDatasetError(
                f"Unknown format: wanted .jsonl or .parquet, found {path.suffix or path.name}"
            )
        return [path]
    for ending in (".jsonl", ".parquet"):
        files = sorted(path.rglob(f"*{ending}"))
        of_split = [file for file in files if file.name.startswith(split)]
        found = of_split or files
        if ending == ".jsonl" and len(found) > 1:
            raise InvalidDatasetError(
                f"Which file is meant: wanted one .jsonl for split {split}, found {len(found)}"
            )
        if found:
            return found
    raise InvalidDatasetError(f"No data set in the folder: wanted .jsonl or .parquet in {path}")
