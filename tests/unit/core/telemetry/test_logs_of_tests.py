import logging

import pytest

from app.core.telemetry.logs import configure_logs


@pytest.mark.parametrize("_run", ["first", "second"])
def test_no_test_writes_logs_as_another_configured_them(
    _run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("a_dependency").info("a request")
    assert capsys.readouterr().err == ""
    configure_logs("info")
    logging.getLogger("a_dependency").info("a request")
    assert "a request" in capsys.readouterr().err
