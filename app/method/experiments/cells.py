"""One cell of the table: a method on a task with so many labelled items and a seed."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import torch

from app.core.errors import JSON, OutOfDeviceMemoryError, VLibraryError
from app.method.experiments.methods import find_method
from app.method.experiments.trial import Trial

CellKey: TypeAlias = tuple[str, str, int, int]
"""Task, method, labelled items and seed."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What one cell measured.

    Attributes:
        items: Labelled items to learn from; 0 where none can change anything.
        scores: Of each test item, in their order; empty where the method was refused.
        refused: Why the method could not be measured here.
        parameters: Numbers that are kept for the method.
    """

    task: str
    method: str
    items: int
    seed: int
    scores: tuple[float, ...] = ()
    refused: str | None = None
    prompt_tokens: float = 0.0
    ms_per_query: float = 0.0
    train_seconds: float = 0.0
    parameters: int = 0
    kind: str = "none"
    labels: int | None = None
    notes: dict[str, JSON] = field(default_factory=dict)

    @property
    def key(self) -> CellKey:
        """What tells it from the other cells of a run."""
        return (self.task, self.method, self.items, self.seed)

    @property
    def accuracy(self) -> float:
        """The mean score; 0 without one."""
        return sum(self.scores) / max(1, len(self.scores))


def measure_cell(trial: Trial, method: str) -> CellResult:
    """Gets the method ready and asks the test items.

    What the method refuses, such as a prompt that is too long, is a result as well.

    Raises:
        InvalidInputError: There is no such method.
        OutOfDeviceMemoryError: The accelerator has no room for it.
    """
    prepare = find_method(method)
    problem = trial.problem
    empty = CellResult(
        task=trial.task.name, method=method, items=len(problem.items), seed=problem.seed
    )
    try:
        condition, about = prepare(trial)
        report = trial.ask(trial.test, condition)
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemoryError("The accelerator has no room for this method") from error
    except OutOfDeviceMemoryError:
        raise
    except VLibraryError as error:
        return replace(empty, refused=error.message)
    return replace(
        empty,
        scores=report.scores,
        prompt_tokens=report.prompt_tokens_mean,
        ms_per_query=report.ms_per_query,
        labels=report.labels,
        **about,
    )


def append_cell(result: CellResult, path: Path) -> None:
    """Keeps a result as one more line of a run's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        line = json.dumps(asdict(result)).encode() + b"\n"
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # A run may have been killed while it wrote.
            line = line if file.read() == b"\n" else b"\n" + line
        file.write(line)


def read_cells(path: Path) -> dict[CellKey, CellResult]:
    """What `append_cell` kept, by key; a line that was not written to its end counts as missing."""
    found = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        result = CellResult(**{**content, "scores": tuple(content["scores"])})
        found[result.key] = result
    return found
