"""Training jobs of the queue: claim, train beside the serving, store everything or nothing."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.backbones import require_same_backbone
from app.core.errors import (
    ConflictError,
    JobCancelledError,
    StorageUnavailableError,
    VLibraryError,
    WorkerUnavailableError,
    is_out_of_space,
)
from app.core.jobs import JobKind
from app.core.telemetry.logs import get_logger
from app.library.database import Sessions, run_transaction
from app.library.datasets import get_dataset
from app.library.records import DatasetRecord
from app.library.storage import ObjectStore, checkpoint_key
from app.library.training.attempts import (
    claim_job,
    fail_job,
    release_job,
    return_delivery,
)
from app.library.workspaces import in_all_workspaces, in_workspace
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.evaluation.tasks.loading import load_examples
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import TrainingResult, training_steps
from app.method.training.progress import Steps
from app.worker.device import DeviceThread
from app.worker.training import combination, evaluation
from app.worker.training.attempt import Attempt, observed, send_heartbeat
from app.worker.training.checkpoints import ObjectCheckpoints
from app.worker.training.results import store_result
from app.worker.training.unseen import Store

HEARTBEAT_SECONDS: Final = 1.0
PAUSE_WITHOUT_STORAGE_SECONDS: Final = 5.0
# Somebody takes the job again, from its checkpoint, when nothing was heard of it for a while.
_GIVEN_UP: Final = (ConflictError, WorkerUnavailableError, OperationalError, InterfaceError)


# Jobs that take stored vectors rather than train some.
_PREPARE: Final[Mapping[JobKind, Callable[..., Awaitable[tuple[Steps[Any], Store]]]]] = {
    "combine": combination.prepare_combination,
    "evaluate": evaluation.prepare_evaluation,
}

log = get_logger(__name__)


class Trainer:
    """Runs the training jobs it is given, one after the other.

    Args:
        pass_tokens: Most tokens of a pass through the backbone, which serving waits for.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: DeviceThread,
        sessions: Sessions,
        objects: ObjectStore,
        pass_tokens: int,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._backbone = backbone
        self._device = device
        self._sessions = in_all_workspaces(sessions)
        self._objects = objects
        self._pass_tokens = pass_tokens
        self._heartbeat_seconds = heartbeat_seconds
        self._is_draining = False
        self._attempt: Attempt | None = None

    def drain(self) -> None:
        """End the training at its next step with a checkpoint, and take no further job."""
        self._is_draining = True
        if self._attempt is not None:
            self._attempt.stop.set()

    async def run(self, job_id: uuid.UUID) -> None:
        """Do the job as far as it can be done here; its record says how it ended.

        A job that another worker has, or that has ended, is left alone. A draining worker puts the
        delivery back for others.
        """
        if self._is_draining:
            await self._return_delivery(job_id)
            return
        try:
            job, token = await run_transaction(
                self._sessions, lambda session: claim_job(session, job_id)
            )
        except ConflictError:
            log.info("job not claimed", action="job.claim", job_id=str(job_id))
            return
        attempt = Attempt(job=job, token=token)
        self._attempt = attempt
        try:
            await self._run_attempt(attempt)
        finally:
            self._attempt = None

    async def _return_delivery(self, job_id: uuid.UUID) -> None:
        try:
            await run_transaction(self._sessions, lambda session: return_delivery(session, job_id))
        except (VLibraryError, SQLAlchemyError, OSError) as error:
            # The search for stalled jobs finds it later.
            log.warning("delivery not returned", action="job.return", error=type(error).__name__)

    async def _run_attempt(self, attempt: Attempt) -> None:
        checkpoints = ObjectCheckpoints(self._objects, key=checkpoint_key(attempt.job.id))
        try:
            async with self._heartbeats(attempt):
                store = await self._execute(attempt, checkpoints)
            await self._store(attempt, store)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job's record must say so
            # Whoever takes the job next must find the newest checkpoint, so nobody does before.
            async with self._heartbeats(attempt):
                await _ignoring_errors(checkpoints.flush())
            is_over = await self._end_without_result(attempt, error)
        else:
            is_over = True
        if is_over:
            await _ignoring_errors(checkpoints.remove())

    @asynccontextmanager
    async def _heartbeats(self, attempt: Attempt) -> AsyncIterator[None]:
        heartbeats = asyncio.create_task(self._send_heartbeats(attempt))
        try:
            yield
        finally:
            heartbeats.cancel()
            await asyncio.gather(heartbeats, return_exceptions=True)

    async def _send_heartbeats(self, attempt: Attempt) -> None:
        """Write progress and read cancel requests until cancelled."""
        while not attempt.is_lost:
            progress = attempt.progress
            try:
                is_cancel_requested = await run_transaction(
                    self._sessions, partial(send_heartbeat, attempt, progress)
                )
            except ConflictError:
                attempt.is_lost = True
            except (SQLAlchemyError, OSError) as error:
                # The database may be restarting; the training itself does not need it.
                log.warning("no heartbeat", action="job.beat", error=type(error).__name__)
            except Exception:
                # Nobody waits for this task, and without it the job would be taken by another.
                log.exception("no heartbeat", action="job.beat")
            else:
                attempt.is_cancelled = is_cancel_requested
                if attempt.progress is progress:
                    attempt.progress = None
            if attempt.is_lost or attempt.is_cancelled:
                attempt.stop.set()
            await asyncio.sleep(self._heartbeat_seconds)

    async def _execute(self, attempt: Attempt, checkpoints: ObjectCheckpoints) -> Store:
        """What stores the result of the job within a transaction."""
        job = attempt.job
        if job.backbone_fingerprint is not None:
            require_same_backbone(
                wanted=self._backbone.description.fingerprint, found=job.backbone_fingerprint
            )
        if job.kind == "train":
            steps, store = await self._training(attempt, checkpoints)
        else:
            steps, store = await _PREPARE[job.kind](
                job,
                backbone=self._backbone,
                sessions=in_workspace(self._sessions, job.workspace),
                load=self._examples,
                token_budget=self._pass_tokens,
                should_stop=attempt.stop.is_set,
            )
        result = await self._device.run_background(observed(steps, attempt, checkpoints))
        return partial(store, token=attempt.token, result=result)

    async def _training(
        self, attempt: Attempt, checkpoints: ObjectCheckpoints
    ) -> tuple[Steps[TrainingResult], Store]:
        job = attempt.job
        # Which items are learnt from is no setting of how.
        settings = {name: value for name, value in job.config.items() if name != "split"}
        config = TrainingConfig.from_dict(settings)
        async with in_workspace(self._sessions, job.workspace)() as session:
            dataset = await get_dataset(session, job.dataset_id)
        examples = await self._examples(dataset, job.config.get("split"))
        # Answers wait for one pass at most.
        bounded = config.changed(token_budget=min(config.token_budget, self._pass_tokens))
        steps = training_steps(
            self._backbone,
            examples,
            bounded,
            resume=partial(checkpoints.of_run, await checkpoints.load()),
            should_stop=attempt.stop.is_set,
        )
        store = partial(
            store_result, job=job, dataset=dataset, backbone=self._backbone, config=config
        )
        return steps, store

    async def _examples(self, dataset: DatasetRecord, split: str | None) -> Sequence[Example]:
        async with self._objects.local_copy(dataset.storage_key) as path:
            return await asyncio.to_thread(load_examples, str(path), split=split)

    async def _store(self, attempt: Attempt, store_all: Store) -> None:
        async def store(session: AsyncSession) -> None:
            await send_heartbeat(attempt, attempt.progress, session)
            await store_all(session)

        await run_transaction(in_workspace(self._sessions, attempt.job.workspace), store)
        log.info("job succeeded", action="job.end", job_id=str(attempt.job.id))

    async def _end_without_result(self, attempt: Attempt, error: Exception) -> bool:
        """Whether the job is over, rather than to be continued by somebody."""
        job_id = attempt.job.id
        is_stopped = isinstance(error, JobCancelledError)
        must_wait = isinstance(error, StorageUnavailableError) or is_out_of_space(error)
        if attempt.is_lost or (isinstance(error, _GIVEN_UP) and not must_wait):
            log.warning("job given up", action="job.end", job_id=str(job_id))
            return False
        if must_wait and not attempt.is_cancelled:
            reason = type(error).__name__
            log.warning("a job waits", action="job.end", job_id=str(job_id), reason=reason)
            await asyncio.sleep(PAUSE_WITHOUT_STORAGE_SECONDS)
        has_failed = not (is_stopped or must_wait)
        if has_failed:
            log.warning("job failed", action="job.end", job_id=str(job_id), exc_info=error)

        async def end(session: AsyncSession) -> bool:
            if not has_failed:
                return await release_job(session, job_id, attempt.token)
            known = error if isinstance(error, VLibraryError) else _unknown(error)
            await fail_job(session, job_id, attempt.token, code=known.code, message=known.message)
            return True

        try:
            return await run_transaction(self._sessions, end)
        except (ConflictError, SQLAlchemyError):
            log.warning("end of job not recorded", action="job.end", job_id=str(job_id))
            return False


async def _ignoring_errors(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - how the job ends must be recorded in any case
        log.warning("checkpoint not put away", action="job.checkpoint", error=type(error).__name__)


def _unknown(error: Exception) -> VLibraryError:
    # Foreign messages may quote questions and answers of the dataset.
    return VLibraryError(f"The training failed: {type(error).__name__}")
