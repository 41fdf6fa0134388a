import threading

import pytest

from app.core.threads import on_passing_thread


def test_work_is_done_on_a_thread_that_is_gone_afterwards() -> None:
    thread = on_passing_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    thread.join(10)
    assert not thread.is_alive()


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        on_passing_thread(work)
