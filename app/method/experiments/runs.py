"""All cells of a plan, each kept once it is measured, so that a run goes on where it stopped."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from app.core.errors import InvalidInputError, OutOfDeviceMemoryError
from app.core.splits import TRAIN
from app.method.adaptation.problem import Problem
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.experiments.cells import CellKey, CellResult, append_cell, measure_cell, read_cells
from app.method.experiments.methods import ALONE, find_method
from app.method.experiments.suite import TEST, VALIDATION, Suite, Task
from app.method.experiments.trial import Trial

PROTOCOL: Final = 2
"""Version of docs/protocol.md that cells are measured by; files of another one are not read."""


@dataclass(frozen=True, kw_only=True)
class SuitePlan:
    """What is measured.

    Attributes:
        questions: Test items a task at most.
        validation: Validation items a task at most.
        shots: Numbers of demonstrations that the best one is chosen from.
        tasks: Names; all of the suite when empty.
    """

    methods: tuple[str, ...]
    items: tuple[int, ...] = (100,)
    seeds: int = 3
    questions: int = 200
    validation: int = 100
    shots: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what cannot be measured.

        Raises:
            InvalidInputError: A number is too small, or a method is unknown.
        """
        for method in self.methods:
            find_method(method)
        if min(self.items) < 8 or self.seeds < 1 or not self.shots or min(self.shots) < 1:  # noqa: PLR2004 - fewer items cannot be split
            raise InvalidInputError(
                f"Wanted at least 8 items, one seed and one shot, found items {list(self.items)}, "
                f"{self.seeds} seeds and shots {list(self.shots)}"
            )


def cells_of(plan: SuitePlan, tasks: Sequence[Task]) -> list[CellResult]:
    """All cells, empty, seed after seed, so that a run which is stopped has every task."""
    found: dict[CellKey, CellResult] = {}
    for seed in range(plan.seeds):
        for task in tasks:
            for items in plan.items:
                for method in plan.methods:
                    is_alone = method in ALONE
                    cell = CellResult(
                        task=task.name,
                        method=method,
                        items=0 if is_alone else items,
                        seed=0 if is_alone else seed,
                    )
                    found[cell.key] = cell
    return list(found.values())


def run_file(output: Path, *, suite: Suite, backbone: Backbone, plan: SuitePlan) -> Path:
    """The file of the cells that may be compared with each other.

    The plan's numbers of questions, validation items and shots count; its methods do not.
    """
    identity = (
        f"{PROTOCOL} {suite.digest} {backbone.description.fingerprint} {plan.questions} "
        f"{plan.validation} {plan.shots}"
    )
    if backbone.dtype is not torch.float32:
        identity += f" {backbone.dtype}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    name = Path(backbone.name).name or backbone.name
    return output / f"{suite.name}-{name}-{digest}.jsonl"


def kept_cells(suite: Suite, plan: SuitePlan, *, file: Path) -> list[CellResult]:
    """The results of the seeds that are whole; where none is, what there is of the first.

    Nothing is measured.
    """
    kept = read_cells(file)
    cells = cells_of(plan, suite.only(plan.tasks))
    missing = {cell.seed for cell in cells if cell.key not in kept}
    whole = set(range(plan.seeds)) - missing or {0}
    chosen = [cell.key for cell in cells if cell.seed in whole or cell.method in ALONE]
    return [kept[key] for key in chosen if key in kept]


def run_suite(
    backbone: Backbone,
    suite: Suite,
    plan: SuitePlan,
    *,
    file: Path,
    on_cell: Callable[[int, int, CellResult], None] | None = None,
) -> Iterator[CellResult]:
    """The results of all cells; what the file has is not measured again.

    `on_cell` is told how many cells are done, how many there are, and the last result.

    Raises:
        NotFoundError: The suite has no such task.
        InvalidInputError: A task has fewer labelled items than are wanted.
        CorruptDataError: A stored picture is damaged.
    """
    tasks = suite.only(plan.tasks)
    cells = cells_of(plan, tasks)
    most = max(cell.items for cell in cells)
    if short := [f"{task.name} ({task.num_train})" for task in tasks if task.num_train < most]:
        raise InvalidInputError(
            f"Too few labelled items: wanted {most} of every task, found fewer in "
            f"{', '.join(short)}"
        )
    kept = read_cells(file)
    by_name = {task.name: task for task in tasks}
    features = FeatureCache(backbone)
    whole: Trial | None = None
    trials: dict[tuple[int, int], Trial] = {}
    for done, cell in enumerate(cells, start=1):
        result = kept.get(cell.key)
        if result is None:
            which = (cell.items, cell.seed)
            if whole is None or whole.task.name != cell.task:
                task = by_name[cell.task]
                whole, trials = _whole(task, plan, features), {}
            if which not in trials:
                trials[which] = _drawn(whole, items=cell.items, seed=cell.seed)
            result = _measured(cell, trials[which], file=file)
        if on_cell is not None:
            on_cell(done, len(cells), result)
        yield result


def _measured(cell: CellResult, trial: Trial, *, file: Path) -> CellResult:
    """The cell with its result, which is kept unless the accelerator had no room this time."""
    try:
        measured = measure_cell(trial, cell.method)
    except OutOfDeviceMemoryError as error:
        return replace(cell, refused=error.message)
    result = replace(measured, items=cell.items, seed=cell.seed)
    append_cell(result, file)
    return result


def _whole(task: Task, plan: SuitePlan, features: FeatureCache) -> Trial:
    """A trial with all labelled items of a task."""
    problem = Problem(
        items=task.load(TRAIN),
        validation=task.load(VALIDATION, limit=plan.validation),
        features=features,
    )
    test = task.load(TEST, limit=plan.questions)
    return Trial(problem=problem, task=task, test=test, shots=plan.shots)


def _drawn(whole: Trial, *, items: int, seed: int) -> Trial:
    """The trial of some of the items; cells of the same ones share what they measured."""
    chosen = whole.problem.items
    if items:
        chosen = whole.task.load(TRAIN, limit=items, seed=1 + seed)
    return replace(
        whole, problem=replace(whole.problem, items=chosen, seed=seed), measured={}, chunks={}
    )
