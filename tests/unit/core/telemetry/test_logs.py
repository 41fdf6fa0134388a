import io
import json
import logging
from contextlib import redirect_stderr

import pytest

from app.core.telemetry.logs import configure_logs, get_logger


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fail_with_a_secret() -> None:
    prompt = "what the user asked"
    raise ValueError(len(prompt))


def test_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    get_logger("app.test").info("job claimed", job_id="j1")
    logging.getLogger("other").warning("odd", extra={"port": 1})
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (ours["event"], ours["job_id"], ours["logger"]) == ("job claimed", "j1", "app.test")
    assert (theirs["event"], theirs["port"], theirs["level"]) == ("odd", 1, "warning")


def test_the_level_is_respected() -> None:
    stream = io.StringIO()
    configure_logs("warning", stream=stream)
    get_logger("app.test").info("quiet")
    assert stream.getvalue() == ""


def test_logs_outlive_a_standard_error_that_was_replaced_for_a_while() -> None:
    # As commands do that are run within a process, and test runners.
    with redirect_stderr(io.StringIO()) as replaced:
        configure_logs("warning")
    replaced.close()
    with redirect_stderr(io.StringIO()) as current:
        get_logger("app.test").warning("still heard")
    assert json.loads(current.getvalue())["event"] == "still heard"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_a_traceback_shows_no_local_variable(stream: io.StringIO) -> None:
    configure_logs(stream=stream)
    try:
        fail_with_a_secret()
    except ValueError:
        get_logger("app.test").exception("it failed")
    text = stream.getvalue()
    assert "fail_with_a_secret" in text
    assert "what the user asked" not in text


def test_a_terminal_gets_no_json() -> None:
    stream = Terminal()
    configure_logs(stream=stream)
    get_logger("app.test").info("hello")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.parametrize(("level", "wanted"), [("info", ["slow"]), ("debug", ["sent", "slow"])])
def test_requests_that_are_sent_are_told_of_for_debugging_alone(
    level: str, wanted: list[str]
) -> None:
    stream = io.StringIO()
    configure_logs(level, stream=stream)
    logging.getLogger("httpx").info("sent")
    logging.getLogger("httpx").warning("slow")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == wanted
