import errno

import pytest

from app.core.errors import is_out_of_space


def test_a_device_that_is_full_tells_it() -> None:
    with pytest.raises(OSError, match="space") as caught, open("/dev/full", "wb") as full:  # noqa: PTH123 - no path
        full.write(b"x")
    assert is_out_of_space(caught.value)


def test_what_came_of_it_counts_as_well() -> None:
    first = OSError(errno.EDQUOT, "over")
    second = ValueError("the archive is damaged")
    second.__cause__ = first
    assert is_out_of_space(second)
    assert is_out_of_space(RuntimeError("Generic error: No space left on device (os error 28)"))


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "none"), ValueError("x")])
def test_nothing_else_does(error: Exception) -> None:
    error.__context__ = error
    assert not is_out_of_space(error)
