"""One attempt at a training job: its progress, its checkpoints, and whether it is to stop."""

import threading
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app.library.records import JobRecord
from app.library.training.attempts import heartbeat
from app.method.steps import BackgroundSteps, OffDevice, relayed
from app.method.training.checkpoints import Checkpoint
from app.method.training.progress import Event, Steps, TrainingProgress
from app.worker.training.checkpoints import ObjectCheckpoints

Result = TypeVar("Result")


@dataclass(kw_only=True, eq=False)
class Attempt:
    """One attempt at a job, shared by the event loop and the device thread.

    Attributes:
        token: The fencing token of the attempt.
        stop: Set when the training must end at its next step, for whatever reason.
        is_lost: Whether the job is no longer this attempt's.
        progress: The latest that is not in the database yet.
    """

    job: JobRecord
    token: int
    stop: threading.Event = field(default_factory=threading.Event)
    is_cancelled: bool = False
    is_lost: bool = False
    progress: TrainingProgress | None = None


def observed(
    steps: Steps[Result], attempt: Attempt, checkpoints: ObjectCheckpoints
) -> BackgroundSteps[Result]:
    """The training's steps for the device, their progress noted and their checkpoints saved."""

    def note(event: Event) -> OffDevice | None:
        if isinstance(event, TrainingProgress):
            attempt.progress = event
            return None
        if isinstance(event, Checkpoint):
            return OffDevice(partial(checkpoints.save, event))
        return event

    return relayed(steps, note)


async def send_heartbeat(
    attempt: Attempt, progress: TrainingProgress | None, session: AsyncSession
) -> bool:
    """Write new progress, or only that the worker lives; whether cancelling was requested."""
    values = None if progress is None else asdict(progress)
    return await heartbeat(session, attempt.job.id, attempt.token, progress=values)
