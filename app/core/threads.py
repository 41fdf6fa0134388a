"""Threads that compute and end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def on_passing_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, done on a thread that ends with it.

    OpenMP gives every thread that computes helpers of its own, which stay as long as the thread
    does. When all of them are more than the processor has cores, helpers sleep between two
    operations instead of waiting awake, and waking them takes longer than a small operation does.
    So where one thread shall compute fast, no other thread may live that ever computed.

    An interrupt of the calling thread does not wait for the work.
    """
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            done.set_exception(error)

    threading.Thread(target=run, name="passing", daemon=True).start()
    return done.result()
