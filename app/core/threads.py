"""Threads that compute and end."""

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

Result = TypeVar("Result")


def on_passing_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, done on a thread that ends with it.

    OpenMP gives every thread that computes helpers of its own, which stay as long as the thread
    does. When all of them are more than the processor has cores, helpers sleep between two
    operations instead of waiting awake, and waking them takes longer than a small operation does.
    So where one thread shall compute fast, no other thread may live that ever computed.

    What interrupts the calling thread is raised in the work as well, and waits for its end: a
    process that ends in the middle of an operation is aborted.
    """
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            done.set_exception(error)

    thread = threading.Thread(target=run, name="passing", daemon=True)
    thread.start()
    try:
        # Not for the thread itself: Python 3.11 takes it for ended once that wait is interrupted.
        wait([done])
    except BaseException as error:
        _raise_in(thread, type(error))
        wait([done])
        raise
    finally:
        thread.join()
    return done.result()


def _raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise an error in a thread when it next runs Python; nothing when it has ended."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error)
    )
