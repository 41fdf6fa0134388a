"""Training jobs as handles: look again, listen, cancel, wait."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Generator
from typing import Generic

from vlibrary_client.calls import trainings
from vlibrary_client.errors import JobCancelledError, WaitTimeoutError, error_from_code
from vlibrary_client.notebooks import comparison, facts
from vlibrary_client.streams import async_job_events, job_events
from vlibrary_client.terminals import OnProgress, print_report, progress_reporter
from vlibrary_client.trackers import ReportTo, TrackedJob, tracked
from vlibrary_client.types import JobEvent, JobFailure, JobRecord
from vlibrary_client.wire.endpoints import Transport
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport


class _Handle(JobRecord, Generic[Transport]):
    """What the server said of a job when it was last asked, and how to ask again."""

    transport: Transport

    def __init__(self, record: JobRecord, transport: Transport) -> None:
        super().__init__(**vars(record))
        object.__setattr__(self, "transport", transport)

    def _repr_html_(self) -> str:
        """The job as notebooks show it: what it is, and how its vector did."""
        return facts(self) + comparison(self.report or {})


def _check_success(record: JobRecord) -> None:
    """Raises what ended the job, unless it succeeded; its `details` have the job and its state.

    Raises:
        JobCancelledError: The job was cancelled.
        VLibraryError: The job failed, by the code that the server stored.
    """
    details = {"job": str(record.id), "state": record.state}
    if record.state == "cancelled":
        raise JobCancelledError(f"the job {record.id} was cancelled", details=details)
    if record.state == "failed":
        failure = record.error or JobFailure(code="error", message="no reason given")
        message = f"the job {record.id} failed: {failure.message}"
        raise error_from_code(failure.code, message, details=details)


def _timed_out(record: JobRecord, timeout: float) -> WaitTimeoutError:
    waiting = "" if record.waits_for is None else f": it waits for {record.waits_for}"
    return WaitTimeoutError(f"the job {record.id} is not finished after {timeout:g} s{waiting}")


class Job(_Handle[SyncTransport]):
    """A job as it was, with what can be done about it: `refresh` returns it as it is."""

    def refresh(self) -> "Job":
        """The job as it is now."""
        return Job(self.transport.send(trainings.get_job(self.id)), self.transport)

    def cancel(self) -> "Job":
        """Asks the job to stop; it does so at its next step.

        Raises:
            ConflictError: It has succeeded or failed already.
        """
        return Job(self.transport.send(trainings.cancel_job(self.id)), self.transport)

    def events(self, *, after: int = 0) -> Generator[JobEvent, None, None]:
        """What happens to the job, from its beginning or after event number `after`.

        Ends when the job does; lost connections are resumed without losing an event.
        """
        return job_events(self.transport, self.id, after=after)

    def wait(
        self,
        *,
        progress: bool | OnProgress = False,
        report_to: ReportTo = None,
        timeout: float | None = None,
    ) -> "Job":
        """The finished job, whose `vector` is then set.

        Args:
            progress: `True` draws a bar on the terminal and prints how the vector did; a function
                is called with every report.
            report_to: Experiment trackers that get the job's losses and accuracies from its
                beginning: `trackio`, `mlflow`, `wandb`, `tensorboard`, or several of them.
            timeout: The longest wait in seconds; the job goes on when it is over.

        Raises:
            WaitTimeoutError: The time is over.
            ConfigurationError: A tracker is unknown, its package is missing, or it begins no run.
            JobCancelledError: The job was cancelled.
            VLibraryError: The job failed, or the server stays unreachable.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        job = self.refresh()
        # What a tracker wants of a job that is over is still told.
        is_over = job.is_final and not report_to
        with (
            tracked(report_to, job) as trackers,
            progress_reporter(
                progress=not is_over and progress, title=job.name, waits_for=job.waits_for
            ) as report,
        ):
            events = job_events(self.transport, self.id, deadline=deadline)
            for event in () if is_over else events:
                if event.progress is not None:
                    report(event.progress)
                    trackers.progress(event.progress)
            job = self.refresh()
            if timeout is not None and not job.is_final:
                raise _timed_out(job, timeout)
            _check_success(job)
            trackers.end(job)
        if progress is True and job.report is not None:
            print_report(job.report)
        return job


class AsyncJob(_Handle[AsyncTransport]):
    """As `Job`, with methods to be awaited."""

    async def refresh(self) -> "AsyncJob":
        """As `Job.refresh`."""
        return AsyncJob(await self.transport.send(trainings.get_job(self.id)), self.transport)

    async def cancel(self) -> "AsyncJob":
        """As `Job.cancel`."""
        return AsyncJob(await self.transport.send(trainings.cancel_job(self.id)), self.transport)

    def events(self, *, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """As `Job.events`."""
        return async_job_events(self.transport, self.id, after=after)

    async def wait(
        self,
        *,
        progress: bool | OnProgress = False,
        report_to: ReportTo = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same spelling as the sync client
    ) -> "AsyncJob":
        """As `Job.wait`; trackers are written to in another thread."""
        job = await self.refresh()
        is_over = job.is_final and not report_to
        with (
            tracked(report_to, job) as trackers,
            progress_reporter(
                progress=not is_over and progress, title=job.name, waits_for=job.waits_for
            ) as report,
        ):
            patience = asyncio.timeout(timeout)
            try:
                async with patience:
                    if not is_over:
                        await _follow(job, report, trackers)
            except TimeoutError as error:
                if not patience.expired():
                    # A tracker's own.
                    raise
                raise _timed_out(job, timeout or 0.0) from error
            job = await self.refresh()
            _check_success(job)
            await asyncio.to_thread(trackers.end, job)
        if progress is True and job.report is not None:
            print_report(job.report)
        return job


async def _follow(job: AsyncJob, report: OnProgress, trackers: TrackedJob) -> None:
    async for event in job.events():
        if event.progress is not None:
            report(event.progress)
            await asyncio.to_thread(trackers.progress, event.progress)
