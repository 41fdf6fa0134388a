"""The one thread that owns the accelerator, and how asyncio reaches it.

Everything that touches the backbone runs here, in turn: its loading, short tasks such as an
embedding, steps of the engine, and steps of background work such as a training.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, Final, TypeVar

from app.core.telemetry.logs import get_logger
from app.method.steps import BackgroundSteps
from app.worker.background import BackgroundWork
from app.worker.engine.engine import Engine
from app.worker.engine.faults import device_lost, device_shut_down, is_fatal, public_error
from app.worker.engine.sequence import Sequence

STOP_SECONDS: Final = 30.0

Result = TypeVar("Result")

log = get_logger(__name__)


Task = tuple[Callable[[], None], "Future[Any] | None"]
"""Something to do on the thread, and who waits for it."""


class DeviceThread:
    """A thread that does tasks and steps an engine, fed through one queue.

    Attributes:
        num_passes: How often background work has handed the device over so far.

    Args:
        training_share: Part of the device time that background work keeps while sequences run.
        on_broken: Called on this thread when the device failed in a way that never heals.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        training_share: float = 0.5,
        on_broken: Callable[[], object] | None = None,
    ) -> None:
        self._engine = engine
        self._training_share = training_share
        self._on_broken = on_broken
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._background: deque[BackgroundWork[Any]] = deque()
        self._serve_until = 0.0
        self._results: dict[str, Future[Sequence]] = {}
        self._gate = threading.Lock()
        self._is_open = False
        self._seconds = {"serving": 0.0, "training": 0.0}
        self.num_passes = 0
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        # One for a training, whose saves may wait for the store, and one for what goes first.
        self._beside = ThreadPoolExecutor(2, thread_name_prefix="beside")

    @property
    def num_running(self) -> int:
        """Sequences that hold a row."""
        return 0 if self._engine is None else self._engine.num_running

    def seconds_by_use(self) -> Mapping[str, float]:
        """Device time spent so far on steps of the engine, and on steps of background work."""
        return dict(self._seconds)

    def start(self) -> None:
        """Take up work."""
        self._is_open = True
        self._thread.start()

    def serve(self, engine: Engine) -> None:
        """Step an engine from the next task on; only this thread touches it."""
        self._engine = engine

    def stop(self) -> None:
        """Finish the piece of work at hand, fail everything else and end the thread."""
        self._close()
        self._thread.join(STOP_SECONDS)
        self._beside.shutdown(wait=False, cancel_futures=True)

    async def call(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, run on the device thread between two steps.

        Raises:
            WorkerUnavailableError: The device is shut down or broken.
            OutOfDeviceMemoryError: The device had no room for it.
        """
        future: Future[Result] = Future()
        self._put(lambda: self._try(future, lambda: future.set_result(work())), future)
        return await asyncio.wrap_future(future)

    async def generate(self, sequence_id: str, make: Callable[[], Sequence]) -> Sequence:
        """The sequence that `make` returns, finished. Cancelling the awaiting task frees its row.

        `make` is called on the device thread.

        Raises:
            WorkerUnavailableError: The device shut down or broke before the sequence was begun.
            UnavailableError: It did so afterwards.
            VLibraryError: The sequence failed; the others go on.
        """
        future: Future[Sequence] = Future()
        self._put(lambda: self._try(future, lambda: self._begin(make(), future)), future)
        try:
            finished = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._call_soon(lambda: self._forget(sequence_id))
            raise
        if finished.error is not None:
            raise finished.error
        return finished

    async def run_background(
        self, steps: BackgroundSteps[Result], *, goes_first: bool = False
    ) -> Result:
        """What the generator returns, run on the device thread beside the serving.

        Args:
            steps: Yields while the backbone carries nothing of it. Closed on the device thread
                when the awaiting task is cancelled.
            goes_first: Whether a training under way waits for it, rather than it for the training.

        Raises:
            WorkerUnavailableError: The device is shut down or broken.
        """
        work = BackgroundWork(steps, beside=self._beside, call_on_device=self._call_soon)

        def enqueue() -> None:
            if work.future.set_running_or_notify_cancel():
                self._background.insert(0 if goes_first else len(self._background), work)

        self._put(enqueue, work.future)
        try:
            return await asyncio.wrap_future(work.future)
        except asyncio.CancelledError:
            self._call_soon(lambda: self._abandon(work))
            raise

    def _call_soon(self, work: Callable[[], None]) -> None:
        self._tasks.put((work, None))

    def _put(self, work: Callable[[], None], waiting: "Future[Any]") -> None:
        with self._gate:
            if not self._is_open:
                raise device_shut_down()
            self._tasks.put((work, waiting))

    def _close(self) -> None:
        with self._gate:
            self._is_open = False
        self._call_soon(lambda: None)

    def _run(self) -> None:
        try:
            while self._is_open:
                self._run_tasks(block=not (self._has_sequences or self._can_train))
                self._step()
                if self._can_train and not (self._has_sequences and self._owes_serving):
                    self._train()
        except Exception:
            log.exception("device broken", action="device.broken")
            if self._on_broken is not None:
                self._on_broken()
        finally:
            self._close()
            self._fail_the_rest()

    def _run_tasks(self, *, block: bool) -> None:
        while block or not self._tasks.empty():
            run, _ = self._tasks.get()
            run()
            block = False

    @property
    def _has_sequences(self) -> bool:
        return self._engine is not None and self._engine.has_work

    @property
    def _can_train(self) -> bool:
        return bool(self._background) and self._background[0].is_ready

    @property
    def _owes_serving(self) -> bool:
        """Whether the last step of background work has not been made up for, as the share says."""
        return monotonic() < self._serve_until

    def _train(self) -> None:
        """Take one step of the background work at hand."""
        began = monotonic()
        goes_on = False
        try:
            goes_on = self._background[0].step()
        except Exception as error:
            if is_fatal(error):
                raise
        finally:
            if goes_on:
                self.num_passes += 1
            else:
                self._background.popleft()
            ended = monotonic()
            worked = ended - began
            self._seconds["training"] += worked
            self._serve_until = ended + worked * (1 - self._training_share) / self._training_share

    def _abandon(self, work: BackgroundWork[Any]) -> None:
        if work in self._background:
            self._background.remove(work)
            work.close()

    def _step(self) -> None:
        if self._engine is None or not self._engine.has_work:
            return
        began = monotonic()
        finished = self._engine.step()
        self._seconds["serving"] += monotonic() - began
        for sequence in finished:
            future = self._results.pop(sequence.id, None)
            if future is not None:
                future.set_result(sequence)

    def _begin(self, sequence: Sequence, future: "Future[Sequence]") -> None:
        if self._engine is None:
            raise device_shut_down()
        self._engine.add(sequence)
        self._results[sequence.id] = future

    def _forget(self, sequence_id: str) -> None:
        self._results.pop(sequence_id, None)
        if self._engine is not None:
            self._engine.abort(sequence_id)

    def _try(self, future: "Future[Any]", work: Callable[[], None]) -> None:
        """Do the work unless nobody waits for it any more; tell who waits when it fails."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            work()
        except Exception as error:
            future.set_exception(public_error(error))
            if is_fatal(error):
                raise

    def _fail_the_rest(self) -> None:
        for work in self._background:
            work.close()
            work.future.set_exception(device_shut_down())
        while not self._tasks.empty():
            _, future = self._tasks.get()
            # Whoever waits may cancel at any moment; from here on it cannot.
            if future is not None and future.set_running_or_notify_cancel():
                future.set_exception(device_shut_down())
        for begun in self._results.values():
            if not begun.done():
                begun.set_exception(device_lost())
