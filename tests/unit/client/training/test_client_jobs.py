import io
import time

import httpx
import pytest
from rich.console import Console

from tests.fakes.servers.scripted_server import JOB_ID, Pieces, ScriptedServer, job_json
from vlibrary_client import (
    AsyncClient,
    AsyncJob,
    Client,
    InvalidDatasetError,
    Job,
    JobCancelledError,
    Progress,
    VLibraryError,
    WaitTimeoutError,
)
from vlibrary_client.terminals import OnProgress, progress_reporter

PROGRESS = (
    b'id: 2\nevent: progress\ndata: {"phase": "student", "step": 3, "num_steps": 9, '
    b'"losses": {"total": 0.5}, "held_out_accuracy": 0.75}\n\n'
)
DONE = b'id: 3\nevent: state\ndata: {"state": "succeeded"}\n\n'
EVENTS = {"content-type": "text/event-stream"}
BOTH = pytest.mark.parametrize("kind", ["sync", "async"])


class JobServer:
    """A server with one job, which is over once its events were heard."""

    def __init__(self, end: str = "succeeded", **changes: object) -> None:
        self.end = end
        self.changes = changes
        self.heard = False
        self.cancelled = False
        self.scripted = ScriptedServer([self.answer])

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            self.heard = True
            return httpx.Response(200, stream=Pieces(PROGRESS, DONE), headers=EVENTS)
        if request.url.path.endswith("/cancel"):
            self.cancelled = True
        state = self.end if self.heard else "running"
        return httpx.Response(200, json=job_json(state, **(self.changes if self.heard else {})))

    async def wait(
        self, kind: str, *, progress: OnProgress | bool = False, seconds: float | None = None
    ) -> Job | AsyncJob:
        if kind == "sync":
            with Client(transport=self.scripted.transport) as client:
                return client.job(JOB_ID).wait(progress=progress, timeout=seconds)
        async with AsyncClient(transport=self.scripted.async_transport) as client:
            return await (await client.job(JOB_ID)).wait(progress=progress, timeout=seconds)


@BOTH
@pytest.mark.anyio
async def test_waiting_reports_progress_and_returns_the_finished_job(kind: str) -> None:
    reports: list[Progress] = []
    job = await JobServer(seconds=2.0).wait(kind, progress=reports.append)
    assert [(report.phase, report.step, report.num_steps) for report in reports] == [
        ("student", 3, 9)
    ]
    assert job.vector is not None
    assert (job.vector.ref, job.seconds, job.is_final) == ("colours@3", 2.0, True)


@BOTH
@pytest.mark.anyio
async def test_waiting_for_a_finished_job_listens_to_nothing_and_draws_no_bar(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = JobServer()
    server.heard = True
    job = await server.wait(kind, progress=True, seconds=5.0)
    assert job.state == "succeeded"
    assert capsys.readouterr().err == ""
    assert not any(request.url.path.endswith("events") for request in server.scripted.requests)


@BOTH
@pytest.mark.anyio
async def test_a_failed_job_raises_what_ended_it(kind: str) -> None:
    failure = {"code": "invalid-dataset", "message": "no items"}
    with pytest.raises(InvalidDatasetError, match="no items") as caught:
        await JobServer("failed", error=failure).wait(kind)
    assert caught.value.details == {"job": JOB_ID, "state": "failed"}


@BOTH
@pytest.mark.anyio
async def test_a_failed_job_without_a_reason_is_an_error(kind: str) -> None:
    with pytest.raises(VLibraryError, match="no reason"):
        await JobServer("failed").wait(kind)


@BOTH
@pytest.mark.anyio
async def test_a_cancelled_job_raises(kind: str) -> None:
    with pytest.raises(JobCancelledError):
        await JobServer("cancelled").wait(kind)


@pytest.mark.anyio
async def test_cancelling_asks_the_server() -> None:
    server = JobServer()
    with Client(transport=server.scripted.transport) as client:
        assert client.job(JOB_ID).cancel().state == "running"
    assert server.cancelled
    again = JobServer()
    async with AsyncClient(transport=again.scripted.async_transport) as async_client:
        await (await async_client.job(JOB_ID)).cancel()
        listed = httpx.Response(200, json={"items": [job_json()], "next_cursor": None})
        again.scripted.answers = [listed]
        assert (await async_client.jobs()).items[0].state == "queued"
    assert again.cancelled


def silent_server() -> ScriptedServer:
    """A job that runs for ever, and a stream that only ever pings."""

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json=job_json("running"))
        time.sleep(0.02)
        silence = request.extensions["timeout"]["read"]
        if silence < 1:
            raise httpx.ReadTimeout("silence")
        return httpx.Response(200, stream=Pieces(b": ping\n\n"), headers=EVENTS)

    return ScriptedServer([answer])


async def wait_a_moment(server: ScriptedServer, kind: str) -> None:
    if kind == "sync":
        Client(transport=server.transport).job(JOB_ID).wait(timeout=0.2)
    else:
        client = AsyncClient(transport=server.async_transport)
        await (await client.job(JOB_ID)).wait(timeout=0.2)


@BOTH
@pytest.mark.anyio
async def test_waiting_ends_in_time_though_nothing_happens(kind: str) -> None:
    server = silent_server()
    start = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"0\.2 s"):
        await wait_a_moment(server, kind)
    assert time.monotonic() - start < 60


def test_the_bar_shows_the_phase_and_the_figures() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=160)
    with progress_reporter(progress=True, title="colours", console=console) as report:
        report(
            Progress(
                phase="student",
                step=3,
                num_steps=9,
                losses={"total": 0.5, "odd": None},
                held_out_accuracy=0.75,
            )
        )
    text = output.getvalue()
    assert "colours · student" in text
    assert "3/9" in text
    assert "total 0.500  held-out 75.0%" in text


def test_silence_is_the_default() -> None:
    output = io.StringIO()
    with progress_reporter(progress=False, title="x", console=Console(file=output)) as report:
        report(Progress(phase="student", step=1, num_steps=2))
    assert output.getvalue() == ""
