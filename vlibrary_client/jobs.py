"""Training jobs as handles: look again, listen, cancel, wait."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from vlibrary_client.calls import trainings
from vlibrary_client.errors import WaitTimeoutError, error_from_code
from vlibrary_client.notebooks import comparison, facts
from vlibrary_client.streams import async_job_events, job_events
from vlibrary_client.terminals import OnProgress, print_report, progress_reporter
from vlibrary_client.trackers import ReportTo, TrackedJob, tracked
from vlibrary_client.types import JobEvent, JobFailure, JobRecord, JobState, Progress, VectorName
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport


@dataclass(frozen=True)
class _Handle:
    """What both kinds of jobs show of the record they were last given."""

    record: JobRecord

    @property
    def id(self) -> UUID:
        """The job's id."""
        return self.record.id

    @property
    def name(self) -> str:
        """The name of the vector to be made."""
        return self.record.name

    @property
    def state(self) -> JobState:
        """The state when the record was fetched."""
        return self.record.state

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to the job any more."""
        return self.record.is_final

    @property
    def vector(self) -> VectorName | None:
        """The vector that the job stored, once it succeeded."""
        return self.record.vector

    @property
    def report(self) -> dict[str, Any] | None:
        """How the vector did on held-out items beside its opponents, once the job succeeded.

        `status`, `reason` and `advice` are for people; `conditions` has accuracy, interval, prompt
        tokens and labels of every way of answering. `vlibrary_client.terminals` prints it.
        """
        return self.record.report

    @property
    def progress(self) -> Progress | None:
        """How far the job was when the record was fetched."""
        return self.record.progress

    @property
    def error(self) -> JobFailure | None:
        """Why the job failed, if it did."""
        return self.record.error

    @property
    def seconds(self) -> float | None:
        """The time spent running."""
        return self.record.seconds

    def _repr_html_(self) -> str:
        """The job as notebooks show it: what it is, and how its vector did."""
        return facts(self.record) + comparison(self.report or {})


def _check_success(record: JobRecord) -> None:
    """Raises what ended the job, unless it succeeded.

    Raises:
        JobCancelledError: The job was cancelled.
        VLibraryError: The job failed, by the code that the server stored.
    """
    if record.state == "cancelled":
        raise error_from_code("cancelled", f"the job {record.id} was cancelled")
    if record.state == "failed":
        failure = record.error
        code, message = (failure.code, failure.message) if failure else ("error", "no reason given")
        raise error_from_code(code, f"the job {record.id} failed: {message}")


def _timed_out(record: JobRecord, timeout: float) -> WaitTimeoutError:
    return WaitTimeoutError(f"the job {record.id} is not finished after {timeout:g} s")


@dataclass(frozen=True)
class Job(_Handle):
    """A training job. It is a snapshot: `refresh` returns a newer one."""

    transport: SyncTransport = field(repr=False)

    def refresh(self) -> "Job":
        """The job as it is now."""
        return replace(self, record=self.transport.send(trainings.get_job(self.id)))

    def cancel(self) -> "Job":
        """Asks the job to stop; it does so at its next step.

        Raises:
            ConflictError: It has succeeded or failed already.
        """
        return replace(self, record=self.transport.send(trainings.cancel_job(self.id)))

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
        with (
            tracked(report_to, job.record) as trackers,
            progress_reporter(progress=progress, title=job.record.name) as report,
        ):
            # What a tracker wants of a job that is over is still told.
            events = job_events(self.transport, self.id, deadline=deadline)
            for event in () if job.is_final and not report_to else events:
                if event.progress is not None:
                    report(event.progress)
                    trackers.progress(event.progress)
            job = self.refresh()
            if timeout is not None and not job.is_final:
                raise _timed_out(job.record, timeout)
            _check_success(job.record)
            trackers.end(job.record)
        if progress is True and job.report is not None:
            print_report(job.report)
        return job


@dataclass(frozen=True)
class AsyncJob(_Handle):
    """A training job. It is a snapshot: `refresh` returns a newer one."""

    transport: AsyncTransport = field(repr=False)

    async def refresh(self) -> "AsyncJob":
        """As `Job.refresh`."""
        return replace(self, record=await self.transport.send(trainings.get_job(self.id)))

    async def cancel(self) -> "AsyncJob":
        """As `Job.cancel`."""
        return replace(self, record=await self.transport.send(trainings.cancel_job(self.id)))

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
        with (
            tracked(report_to, job.record) as trackers,
            progress_reporter(progress=progress, title=job.record.name) as report,
        ):
            try:
                async with asyncio.timeout(timeout):
                    if not job.is_final or report_to:
                        await _follow(job, report, trackers)
            except TimeoutError as error:
                raise _timed_out(job.record, timeout or 0.0) from error
            job = await self.refresh()
            _check_success(job.record)
            await asyncio.to_thread(trackers.end, job.record)
        if progress is True and job.report is not None:
            print_report(job.report)
        return job


async def _follow(job: AsyncJob, report: OnProgress, trackers: TrackedJob) -> None:
    async for event in job.events():
        if event.progress is not None:
            report(event.progress)
            await asyncio.to_thread(trackers.progress, event.progress)
