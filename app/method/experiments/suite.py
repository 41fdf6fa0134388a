"""A suite: tasks as stored data sets with pictures for training, choosing and testing apart."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.core.errors import InvalidDatasetError, NotFoundError
from app.core.folders import default_cache_dir
from app.core.splits import TRAIN
from app.method.backbone.examples import Example
from app.method.backbone.randomness import generator_for
from app.method.evaluation.tasks.parquet import load_parquet

MANIFEST: Final = "suite.json"
VALIDATION: Final = "validation"
TEST: Final = "test"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a suite.

    Attributes:
        about: What is asked, whose pictures they are and under which licence.
        num_train: Labelled items to learn from.
    """

    name: str
    file: Path
    scorer: str
    max_new_tokens: int
    about: str
    num_train: int

    def load(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Example]:
        """Items of a split in an order of their own; a smaller limit gives the first of them."""
        items = load_parquet(self.file, split=split, limit=None, seed=0)
        order = generator_for(seed, "suite", split).permutation(len(items))
        return [items[int(place)] for place in order[:limit]]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks that are measured together.

    Attributes:
        digest: Of its manifest, which has those of the files.
    """

    name: str
    digest: str
    tasks: tuple[Task, ...]

    def only(self, names: Sequence[str]) -> tuple[Task, ...]:
        """The tasks of these names; all of them when no name is given.

        Raises:
            NotFoundError: There is no such task.
        """
        known = {task.name: task for task in self.tasks}
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise NotFoundError(
                f"No such task: wanted {', '.join(known)}, found {', '.join(unknown)}"
            )
        return tuple(known[name] for name in names) or self.tasks


def suites_folder() -> Path:
    """Where suites are looked for by their names."""
    return default_cache_dir() / "suites"


def load_suite(name_or_folder: str) -> Suite:
    """A suite by its name, below the cache folder, or by its own folder.

    Raises:
        NotFoundError: There is none.
        InvalidDatasetError: A file is not the one that its manifest tells of.
    """
    folder = Path(name_or_folder)
    if not (folder / MANIFEST).is_file():
        folder = suites_folder() / name_or_folder
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise NotFoundError(
            f"No such suite: wanted a folder with {MANIFEST}, or a name below {suites_folder()} "
            f"(`make suite` makes pocket and development there), found {name_or_folder}"
        )
    text = manifest.read_bytes()
    content: dict[str, Any] = json.loads(text)
    tasks = tuple(_task(folder, entry) for entry in content["tasks"])
    digest = hashlib.sha256(text).hexdigest()
    return Suite(name=str(content["name"]), digest=digest, tasks=tasks)


def _task(folder: Path, entry: dict[str, Any]) -> Task:
    file = folder / str(entry["file"])
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no file"
    if found != entry["digest"]:
        raise InvalidDatasetError(
            f"{entry['name']} is not what the suite tells of: wanted {entry['digest']}, "
            f"found {found}"
        )
    return Task(
        name=str(entry["name"]),
        file=file,
        scorer=str(entry["scorer"]),
        max_new_tokens=int(entry["max_new_tokens"]),
        about=str(entry["about"]),
        num_train=int(entry["splits"][TRAIN]),
    )
