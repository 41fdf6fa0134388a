"""One cell of the table: a method on a task with so many labelled items and a seed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from app.core.errors import JSON, VLibraryError
from app.method.backbone.examples import Example
from app.method.baselines import word_table
from app.method.evaluation.conditions import zero_shot
from app.method.evaluation.metrics import find_scorer
from app.method.evaluation.report import ConditionReport, evaluate
from app.method.experiments.methods import WORD_TABLE, Prepared, find_method
from app.method.experiments.trial import Trial


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
    def file(self) -> Path:
        """Where it is kept within a run's folder."""
        name = self.method.replace(":", ",")
        return Path(self.task) / f"{name}-{self.items}-{self.seed}.json"

    @property
    def accuracy(self) -> float:
        """The mean score; 0 without one."""
        return sum(self.scores) / max(1, len(self.scores))


def measure_cell(trial: Trial, method: str) -> CellResult:
    """Gets the method ready and asks the test items.

    What the method refuses, such as a prompt that is too long, is a result as well.

    Raises:
        InvalidInputError: There is no such method.
    """
    prepare = find_method(method)
    problem = trial.problem
    empty = CellResult(
        task=trial.task.name, method=method, items=len(problem.items), seed=problem.seed
    )
    try:
        prepared = prepare(trial)
        report = _ask(trial, trial.test, prepared)
    except VLibraryError as error:
        return replace(empty, refused=error.message)
    scores = tuple(prediction.score for prediction in report.predictions)
    if method == WORD_TABLE:
        scores = _translated(trial, report)
    return replace(
        empty,
        scores=scores,
        prompt_tokens=report.prompt_tokens_mean,
        ms_per_query=report.ms_per_query,
        train_seconds=prepared.seconds,
        parameters=prepared.parameters,
        kind=prepared.kind,
        labels=report.labels,
        notes=prepared.notes,
    )


def _ask(trial: Trial, asked: Sequence[Example], prepared: Prepared) -> ConditionReport:
    return evaluate(
        trial.problem.backbone,
        asked,
        condition=prepared.condition,
        scorer=trial.task.scorer,
        max_new_tokens=trial.task.max_new_tokens,
        features=trial.problem.features,
    )


def _translated(trial: Trial, report: ConditionReport) -> tuple[float, ...]:
    """Scores of what the word table makes of the zero-shot answers."""
    items = trial.problem.items
    said = _ask(trial, items, Prepared(condition=zero_shot())).predictions
    answers = [item.answer for item in items]
    table = word_table.fit([prediction.text for prediction in said], answers)
    score = find_scorer(trial.task.scorer)
    return tuple(
        score(word_table.look_up(table, prediction.text), item.answers)
        for prediction, item in zip(report.predictions, trial.test, strict=True)
    )


def write_cell(result: CellResult, path: Path) -> None:
    """Keeps a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(result)))
    fresh.replace(path)


def read_cell(path: Path) -> CellResult:
    """What `write_cell` kept."""
    content = json.loads(path.read_text())
    return CellResult(**{**content, "scores": tuple(content["scores"])})
