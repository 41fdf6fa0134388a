import signal
import threading
import time

import pytest

from app.core.threads import on_passing_thread


def test_work_is_done_on_a_thread_that_is_gone_afterwards() -> None:
    thread = on_passing_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        on_passing_thread(work)


def test_an_interrupt_reaches_the_work_and_waits_for_its_end() -> None:
    main = threading.main_thread().ident
    assert main is not None
    ended: list[bool] = []

    def work() -> None:
        try:
            time.sleep(0.1)
            signal.pthread_kill(main, signal.SIGINT)
            while True:
                time.sleep(0.001)
        finally:
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        on_passing_thread(work)
    assert ended
