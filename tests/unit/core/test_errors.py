import pytest

from app.core.errors import UnavailableError, VLibraryError, error_from_code


def every_class() -> list[type[VLibraryError]]:
    found = [VLibraryError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_every_error_has_its_own_code() -> None:
    codes = [kind.code for kind in every_class()]
    assert len(codes) == len(set(codes)) > 15


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.code)
def test_an_error_survives_the_wire(kind: type[VLibraryError]) -> None:
    sent = kind("wanted 1, found 2", details={"wanted": 1})
    received = error_from_code(sent.code, sent.message, sent.details)
    assert type(received) is kind
    assert str(received) == received.message == "wanted 1, found 2"
    assert received.details == {"wanted": 1}


def test_the_time_to_wait_survives_the_wire() -> None:
    received = error_from_code("busy", "full", {"retry_after_seconds": 3})
    assert isinstance(received, UnavailableError)
    assert received.retry_after_seconds == 3.0


def test_an_unknown_code_is_kept() -> None:
    received = error_from_code("from-the-future", "new")
    assert type(received) is VLibraryError
    assert received.details == {"code": "from-the-future"}


def test_details_are_the_errors_own() -> None:
    given = {"wanted": 1}
    error = VLibraryError("no", details=given)
    given["wanted"] = 2
    assert error.details == {"wanted": 1}
