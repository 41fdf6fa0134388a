"""Experiment trackers that a job's events are written to while somebody waits for its end.

Each is a package of its own, imported when it is asked for. Who has a run open has it written to;
otherwise one is made and ended, called by the vector's name and the beginning of the job's id.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal, TypeAlias, get_args

from vlibrary_client.errors import ConfigurationError, VLibraryError
from vlibrary_client.types import JobRecord, Progress

Tracker: TypeAlias = Literal["trackio", "mlflow", "wandb", "tensorboard"]
ReportTo: TypeAlias = Tracker | Sequence[Tracker] | None

PROJECT = "vlibrary"
FOLDER = "runs"

_MODULES: Mapping[Tracker, str] = {"tensorboard": "tensorboard.summary"}

_Log: TypeAlias = Callable[[str, Mapping[str, float], int], None]
"""Writes values of a group, such as `student`, at a step of it."""


class TrackedJob:
    """Writes what a job tells to every tracker that was asked for."""

    def __init__(self, logs: Sequence[_Log]) -> None:
        self._logs = logs
        self._steps = 0

    def progress(self, progress: Progress) -> None:
        """Writes one report: losses, rate, speed and held-out accuracy, by phase and step."""
        values: dict[str, float | None] = {
            f"loss/{name}": value for name, value in progress.losses.items()
        }
        if progress.losses:
            values["learning_rate"] = progress.learning_rate
            self._steps = max(self._steps, progress.step)
        values["items_per_second"] = progress.items_per_second
        values["held_out_accuracy"] = progress.held_out_accuracy
        self._log(progress.phase, values, progress.step)

    def end(self, record: JobRecord) -> None:
        """Writes how the finished job did on held-out items, beside its opponents."""
        conditions = (record.report or {}).get("conditions", {})
        values = {f"accuracy/{name}": found["accuracy"] for name, found in conditions.items()}
        self._log("held_out", {**values, "seconds": record.seconds}, self._steps)

    def _log(self, group: str, values: Mapping[str, float | None], step: int) -> None:
        known = {name: float(value) for name, value in values.items() if value is not None}
        for log in self._logs if known else ():
            log(group, known, step)


@contextmanager
def tracked(report_to: ReportTo, record: JobRecord) -> Iterator[TrackedJob]:
    """Runs of the trackers, open within the block; one that ends with an error has failed.

    Raises:
        ConfigurationError: A tracker is unknown, its package is missing, or it begins no run.
    """
    with ExitStack() as stack:
        yield TrackedJob([_begun(stack, name, record) for name in _names(report_to)])


def _begun(stack: ExitStack, name: Tracker, record: JobRecord) -> _Log:
    try:
        return stack.enter_context(_RUNS[name](record))
    except VLibraryError:
        raise
    except Exception as error:
        # Each package has its own for who is not logged in, or cannot be reached.
        raise ConfigurationError(f"cannot report to {name}: {error}") from error


def require_trackers(report_to: ReportTo) -> None:
    """Returns when every tracker can be written to, before there is a job to tell of.

    Raises:
        ConfigurationError: A tracker is unknown, or its package is missing.
    """
    for name in _names(report_to):
        _package(name)


def _names(report_to: ReportTo) -> list[Tracker]:
    given = [report_to] if isinstance(report_to, str) else report_to or ()
    names: list[Tracker] = list(dict.fromkeys(given))
    if unknown := sorted(set(names) - set(get_args(Tracker))):
        raise ConfigurationError(
            f"unknown tracker {', '.join(unknown)}: wanted {', '.join(get_args(Tracker))}"
        )
    return names


def _package(name: Tracker) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(_MODULES.get(name, name))
    except ImportError:
        raise ConfigurationError(f"to report to {name}, pip install {name}") from None


def _title(record: JobRecord) -> str:
    return f"{record.name}-{str(record.id)[:8]}"


def _settings(record: JobRecord) -> dict[str, Any]:
    return {**record.config, "dataset_id": str(record.dataset_id), "job_id": str(record.id)}


@contextmanager
def _wandb(record: JobRecord) -> Iterator[_Log]:
    wandb = _package("wandb")
    own = wandb.run is None
    run = wandb.run
    if own:
        run = wandb.init(project=PROJECT, name=_title(record), config=_settings(record))
    groups: set[str] = set()

    def log(group: str, values: Mapping[str, float], step: int) -> None:
        if group not in groups:
            # Its own step only grows, and every phase counts from 0.
            run.define_metric(f"{group}/*", step_metric=f"{group}/step")
            groups.add(group)
        run.log(_named(group, {**values, "step": step}))

    try:
        yield log
    except BaseException:
        if own:
            run.finish(exit_code=1)
        raise
    if own:
        run.finish()


@contextmanager
def _trackio(record: JobRecord) -> Iterator[_Log]:
    trackio = _package("trackio")
    own = trackio.context_vars.current_run.get() is None
    if own:
        trackio.init(project=PROJECT, name=_title(record), config=_settings(record))

    def log(group: str, values: Mapping[str, float], step: int) -> None:
        trackio.log(_named(group, {**values, "step": step}))

    try:
        yield log
    finally:
        if own:
            trackio.finish()


@contextmanager
def _mlflow(record: JobRecord) -> Iterator[_Log]:
    mlflow = _package("mlflow")
    own = mlflow.active_run() is None
    run = mlflow.start_run(run_name=_title(record)) if own else mlflow.active_run()
    # The active run belongs to a thread; its id does not.
    run_id, client = run.info.run_id, mlflow.MlflowClient()
    for name, value in _settings(record).items():
        client.set_tag(run_id, f"{PROJECT}.{name}", str(value))

    def log(group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in _named(group, values).items():
            client.log_metric(run_id, name, value, step=step)

    try:
        yield log
    except BaseException:
        if own:
            mlflow.end_run("FAILED")
        raise
    if own:
        mlflow.end_run()


@contextmanager
def _tensorboard(record: JobRecord) -> Iterator[_Log]:
    summary = _package("tensorboard")
    writer = summary.Writer(f"{FOLDER}/{_title(record)}")

    def log(group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in _named(group, values).items():
            writer.add_scalar(name, value, step)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()


def _named(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


_RUNS: Mapping[str, Callable[[JobRecord], AbstractContextManager[_Log]]] = {
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
}
