"""What experiment trackers get of a job: a real one, and stand-ins with the calls of the others."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.fakes.servers.scripted_server import JOB_ID, Pieces, ScriptedServer, job_json
from vlibrary_client import AsyncClient, Client, ConfigurationError, JobCancelledError
from vlibrary_client.trackers import ReportTo

EVENTS = {"content-type": "text/event-stream"}
REPORTS = (
    b'id: 1\nevent: progress\ndata: {"phase": "features", "step": 4, "num_steps": 4}\n\n',
    (
        b'id: 2\nevent: progress\ndata: {"phase": "student", "step": 1, "num_steps": 2, '
        b'"losses": {"total": 0.5, "mimicry": null}, "learning_rate": 0.01}\n\n'
    ),
    (
        b'id: 3\nevent: progress\ndata: {"phase": "student", "step": 2, "num_steps": 2, '
        b'"losses": {"total": 0.25, "mimicry": 0.1}, "learning_rate": 0.02, '
        b'"held_out_accuracy": 0.75}\n\n'
    ),
)
OVER = b'id: 4\nevent: state\ndata: {"state": "%s"}\n\n'
REPORT = {
    "status": "ready",
    "reason": "",
    "advice": "",
    "items": 8,
    "shots": 4,
    "conditions": {"m2iv": {"accuracy": 0.75}, "icl": {"accuracy": 0.5}},
}
TITLE = f"colours-{JOB_ID[:8]}"


def job_server(end: str = "succeeded") -> ScriptedServer:
    """A server whose job is over already, with its events still there."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            pieces = Pieces(*REPORTS, OVER % end.encode())
            return httpx.Response(200, stream=pieces, headers=EVENTS)
        return httpx.Response(200, json=job_json(end, report=REPORT, seconds=2.0))

    return ScriptedServer([answer])


def wait(report_to: ReportTo, *, end: str = "succeeded") -> None:
    with Client(transport=job_server(end).transport) as client:
        client.job(JOB_ID).wait(report_to=report_to)


async def wait_async(report_to: ReportTo) -> None:
    async with AsyncClient(transport=job_server().async_transport) as client:
        await (await client.job(JOB_ID)).wait(report_to=report_to)


class Notes:
    """What a stand-in was called with, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def note(self, name: str, result: Any = None) -> Callable[..., Any]:  # noqa: ANN401
        def called(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            self.calls.append((name, (*arguments, *options.values())))
            return result

        return called

    def named(self, name: str) -> list[Any]:
        return [arguments for called, arguments in self.calls if called == name]


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:  # noqa: ANN401
    module = ModuleType(name)
    for member, value in members.items():
        setattr(module, member, value)
    monkeypatch.setitem(sys.modules, name, module)


def install_trackio(monkeypatch: pytest.MonkeyPatch, notes: Notes, *, run: object = None) -> None:
    members = {name: notes.note(name) for name in ("init", "log", "finish")}
    current = SimpleNamespace(current_run=SimpleNamespace(get=lambda: run))
    install(monkeypatch, "trackio", context_vars=current, **members)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_tensorboard_gets_curves_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "sync":
        wait("tensorboard")
    else:
        await wait_async(["tensorboard"])
    read = EventAccumulator(str(tmp_path / "runs" / TITLE))
    read.Reload()

    def curve(tag: str) -> list[tuple[int, Any]]:
        found = [(point.step, point.tensor_proto) for point in read.Tensors(tag)]
        return [(step, pytest.approx(float(proto.float_val[0]))) for step, proto in found]

    assert curve("student/loss/total") == [(1, 0.5), (2, 0.25)]
    assert curve("student/loss/mimicry") == [(2, 0.1)]
    assert curve("student/learning_rate") == [(1, 0.01), (2, 0.02)]
    assert curve("student/held_out_accuracy") == [(2, 0.75)]
    assert curve("held_out/accuracy/m2iv") == [(2, 0.75)]
    assert curve("held_out/accuracy/icl") == [(2, 0.5)]
    assert not any(tag.startswith("features") for tag in read.Tags()["tensors"])


def test_wandb_gets_a_step_for_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    run = SimpleNamespace(
        log=notes.note("log"), define_metric=notes.note("metric"), finish=notes.note("finish")
    )
    install(monkeypatch, "wandb", run=None, init=notes.note("init", run))
    wait("wandb")
    settings = {"shots": 16, "dataset_id": job_json()["dataset_id"], "job_id": JOB_ID}
    assert notes.named("init") == [("vlibrary", TITLE, settings)]
    assert notes.named("metric") == [
        ("student/*", "student/step"),
        ("held_out/*", "held_out/step"),
    ]
    logged = [values for (values,) in notes.named("log")]
    assert logged[0] == {
        "student/loss/total": 0.5,
        "student/learning_rate": 0.01,
        "student/step": 1,
    }
    assert logged[-1] == {
        "held_out/accuracy/m2iv": 0.75,
        "held_out/accuracy/icl": 0.5,
        "held_out/seconds": 2.0,
        "held_out/step": 2,
    }
    assert notes.named("finish") == [()]
    with pytest.raises(JobCancelledError):
        wait("wandb", end="cancelled")
    assert notes.named("finish") == [(), (1,)]


def test_a_run_that_somebody_has_open_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    run = SimpleNamespace(log=notes.note("log"), define_metric=notes.note("metric"))
    install(monkeypatch, "wandb", run=run, init=notes.note("init"))
    wait("wandb")
    assert len(notes.named("log")) == 3
    assert notes.named("init") == []
    install_trackio(monkeypatch, notes, run=run)
    wait("trackio")
    assert len(notes.named("log")) == 6
    assert notes.named("init") == notes.named("finish") == []


def test_a_tracker_that_begins_no_run_is_told_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("No API key configured")

    notes = Notes()
    install(monkeypatch, "wandb", run=None, init=refuse)
    install_trackio(monkeypatch, notes)
    with pytest.raises(ConfigurationError, match="cannot report to wandb: No API key configured"):
        wait(["trackio", "wandb"])
    assert [name for name, _ in notes.calls] == ["init", "finish"]


@pytest.mark.anyio
async def test_a_tracker_that_gives_up_is_no_end_of_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def give_up(*_: object, **__: object) -> None:
        raise TimeoutError("the tracker does not answer")

    install_trackio(monkeypatch, Notes())
    monkeypatch.setattr(sys.modules["trackio"], "log", give_up)
    with pytest.raises(TimeoutError, match="the tracker does not answer"):
        await wait_async("trackio")


def test_trackio_is_written_to_and_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    install_trackio(monkeypatch, notes)
    wait("trackio")
    assert [name for name, _ in notes.calls] == ["init", "log", "log", "log", "finish"]
    assert notes.named("init")[0][:2] == ("vlibrary", TITLE)
    wait(["trackio", "trackio"])
    assert [name for name, _ in notes.calls[5:]] == ["init", "log", "log", "log", "finish"]


@pytest.mark.parametrize(("end", "status"), [("succeeded", ()), ("cancelled", ("FAILED",))])
def test_mlflow_gets_metrics_by_the_id_of_its_run(
    monkeypatch: pytest.MonkeyPatch, end: str, status: tuple[str, ...]
) -> None:
    notes = Notes()
    run = SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    client = SimpleNamespace(log_metric=notes.note("metric"), set_tag=notes.note("tag"))
    install(
        monkeypatch,
        "mlflow",
        active_run=lambda: None,
        start_run=notes.note("start", run),
        end_run=notes.note("end"),
        MlflowClient=lambda: client,
    )
    if end == "succeeded":
        wait("mlflow")
    else:
        with pytest.raises(JobCancelledError):
            wait("mlflow", end=end)
    assert notes.named("start") == [(TITLE,)]
    assert ("r1", "student/loss/total", 0.25, 2) in notes.named("metric")
    assert ("r1", "vlibrary.shots", "16") in notes.named("tag")
    assert notes.named("end") == [status]


def test_several_trackers_get_the_same_and_unknown_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notes = Notes()
    install_trackio(monkeypatch, notes)
    wait(["tensorboard", "trackio"])
    assert len(notes.named("log")) == 3
    assert (tmp_path / "runs" / TITLE).is_dir()
    unknown: Any = "ledger"
    with pytest.raises(ConfigurationError, match="unknown tracker ledger: wanted trackio, mlflow"):
        wait(unknown)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigurationError, match="pip install wandb"):
        wait(["trackio", "wandb"])
    # What was begun before is put away.
    assert len(notes.named("finish")) == len(notes.named("init")) == 2
