"""Work of many steps, such as a training, that goes on while the device serves."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Generic, TypeVar

from app.core.telemetry.logs import get_logger
from app.method.steps import BackgroundSteps, OffDevice
from app.worker.engine.faults import public_error

Result = TypeVar("Result")

log = get_logger(__name__)


class BackgroundWork(Generic[Result]):
    """A generator and who waits for its end. Device thread only, but for the future."""

    def __init__(
        self,
        steps: BackgroundSteps[Result],
        *,
        beside: Executor,
        call_on_device: Callable[[Callable[[], None]], None],
    ) -> None:
        self.future: Future[Result] = Future()
        self._steps = steps
        self._beside = beside
        self._call_on_device = call_on_device
        self._resume: Callable[[], OffDevice | None] | None = partial(next, steps)

    @property
    def is_ready(self) -> bool:
        """Whether a step can be taken now, rather than when another thread has done its part."""
        return self._resume is not None

    def step(self) -> bool:
        """Run to the next yield; False when that was the end.

        Raises:
            Exception: What the work ended with, which its future tells in public words.
        """
        resume, self._resume = self._resume, None
        assert resume is not None  # noqa: S101 - only what is ready takes a step
        try:
            work = resume()
        except StopIteration as end:
            self.future.set_result(end.value)
            return False
        except Exception as error:
            self.future.set_exception(public_error(error))
            raise
        if work is None:
            self._resume = partial(next, self._steps)
        else:
            doing = self._beside.submit(work.work)
            doing.add_done_callback(lambda done: self._call_on_device(lambda: self._go_on(done)))
        return True

    def close(self) -> None:
        """End the work where it is; what fails on the way is logged and ends nothing else."""
        try:
            self._steps.close()
        except Exception as error:
            log.warning("work not ended cleanly", action="device.close", exc_info=error)

    def _go_on(self, done: "Future[Any]") -> None:
        error = done.exception()
        if error is None:
            self._resume = partial(self._steps.send, done.result())
        else:
            self._resume = partial(self._steps.throw, error)
