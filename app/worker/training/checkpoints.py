"""A training's one checkpoint, kept in the object store."""

import asyncio
import hashlib
from concurrent.futures import Future
from typing import Final

from app.core.errors import (
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    StorageUnavailableError,
)
from app.core.telemetry.logs import get_logger
from app.library.storage import ObjectStore
from app.method.training.checkpoints import Checkpoint, decode_checkpoint, encode_checkpoint

TIMEOUT_SECONDS: Final = 120.0
_DIGEST_BYTES: Final = hashlib.sha256().digest_size

log = get_logger(__name__)


class ObjectCheckpoints:
    """Loads, flushes and removes on the event loop; saves from a thread that may wait.

    A save returns when the state is encoded, which is written while the training goes on; the next
    one waits for it, so an older state never replaces a newer one. A state that the store has no
    room or no answer for is left out, as are those that come while it is still asked: the training
    does not need them, and the next may be taken.
    """

    def __init__(self, objects: ObjectStore, *, key: str) -> None:
        self._objects = objects
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._saving: Future[None] | None = None

    async def load(self) -> bytes | None:
        """The bytes saved last, or None when there are none that are whole.

        Raises:
            StorageUnavailableError: The store does not answer.
        """
        try:
            stored = await asyncio.wait_for(self._objects.get_bytes(self._key), TIMEOUT_SECONDS)
        except NotFoundError:
            return None
        except TimeoutError:
            raise StorageUnavailableError("The object store did not answer in time") from None
        digest, data = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if await asyncio.to_thread(_digest, data) != digest:
            log.warning("damaged checkpoint left out", action="job.checkpoint", key=self._key)
            return None
        return data

    def of_run(self, data: bytes | None, identity: str) -> Checkpoint | None:
        """The state in bytes that were saved, unless another run left it. On any thread."""
        try:
            return None if data is None else decode_checkpoint(data, identity)
        except (CorruptDataError, InvalidInputError):
            # A worker of another version or of other settings may have made it.
            log.warning("foreign checkpoint left out", action="job.checkpoint", key=self._key)
            return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Replaces what was saved before. Blocks; neither on the event loop nor on the device."""
        data = encode_checkpoint(checkpoint)
        saving, self._saving = self._saving, None
        if saving is not None:
            try:
                saving.result(TIMEOUT_SECONDS)
            except (StorageFullError, StorageUnavailableError, TimeoutError) as error:
                reason = type(error).__name__
                log.warning(
                    "checkpoint left out", action="job.checkpoint", key=self._key, reason=reason
                )
            if not saving.done():
                self._saving = saving
                return
        self._saving = asyncio.run_coroutine_threadsafe(
            self._objects.put_bytes(self._key, _digest(data) + data), self._loop
        )

    async def flush(self) -> None:
        """Return when the last save is durable; its failure is raised once. Event loop only."""
        saving, self._saving = self._saving, None
        if saving is not None:
            await asyncio.wait_for(asyncio.wrap_future(saving), TIMEOUT_SECONDS)

    async def remove(self) -> None:
        """Drop the checkpoint of a job that has ended. Event loop only."""
        try:
            await self.flush()
        finally:
            await self._objects.delete(self._key)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
