from app.core.errors import VLibraryError


def every_class() -> list[type[VLibraryError]]:
    found = [VLibraryError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_every_error_has_its_own_code() -> None:
    codes = [kind.code for kind in every_class()]
    assert len(codes) == len(set(codes)) > 15


def test_details_are_the_errors_own() -> None:
    given = {"wanted": 1}
    error = VLibraryError("no", details=given)
    given["wanted"] = 2
    assert error.details == {"wanted": 1}
