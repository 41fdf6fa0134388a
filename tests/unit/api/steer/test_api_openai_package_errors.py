"""What the real `openai` package makes of errors of a running server."""

from typing import Any

import openai
import pytest

from app.api.dependencies import Services
from app.rpc.messages import ErrorBody
from tests.fakes.servers.worker import FakeWorker

MODEL = "fake-a"


QUESTION: list[Any] = [{"role": "user", "content": "What colour?"}]


@pytest.mark.parametrize("name", ["gpt-4", "fake-", "fake-a:", "fake-a:UPPER", "fake-a:x@0"])
def test_an_unknown_model_is_not_found(client: openai.OpenAI, name: str) -> None:
    for ask in (
        lambda: client.chat.completions.create(model=name, messages=QUESTION),
        lambda: client.embeddings.create(model=name, input="x"),
        lambda: client.models.retrieve(name),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert "those served: fake-a" in caught.value.message


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("busy", 429, openai.RateLimitError),
        ("worker-unavailable", 503, openai.InternalServerError),
        ("deadline-exceeded", 504, openai.InternalServerError),
        ("steering-failed", 500, openai.InternalServerError),
        ("invalid-input", 400, openai.BadRequestError),
        ("incompatible-backbone", 400, openai.BadRequestError),
        ("too-large", 413, openai.APIStatusError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_the_classes_of_their_status(
    client: openai.OpenAI,
    worker: FakeWorker,
    *,
    code: str,
    status: int,
    kind: type[openai.APIStatusError],
    stream: Any,  # noqa: ANN401 - either literal
) -> None:
    worker.error = ErrorBody(code=code, message="wanted x, found y", retry_after_seconds=2.4)
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=MODEL, messages=QUESTION, stream=stream)
    error = caught.value
    assert (error.status_code, error.code) == (status, code)
    assert error.body == {
        "message": "wanted x, found y",
        "type": error.type,
        "param": None,
        "code": code,
    }
    assert ("retry-after" in error.response.headers) == (status in {429, 503})
    assert error.request_id


def test_a_prompt_that_is_too_long_has_the_code_that_clients_look_for(
    client: openai.OpenAI, worker: FakeWorker
) -> None:
    worker.error = ErrorBody(code="context-overflow", message="wanted 2048, found 3000")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert caught.value.code == "context_length_exceeded"


def test_an_error_in_a_stream_is_raised(client: openai.OpenAI, worker: FakeWorker) -> None:
    worker.breaks_after = 2
    stream = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="ended the answer before its end") as caught:
        list(stream)
    assert caught.value.code == "worker-unavailable"
    assert caught.value.type == "server_error"


@pytest.mark.parametrize(
    ("code", "num_asked"),
    [
        ("busy", 2),
        ("out-of-device-memory", 2),
        ("deadline-exceeded", 1),
        ("steering-failed", 1),
        ("something-new", 1),
        ("invalid-input", 1),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_only_what_passes_is_asked_again(
    url: str,
    worker: FakeWorker,
    *,
    code: str,
    num_asked: int,
    stream: Any,  # noqa: ANN401 - either literal
) -> None:
    worker.error = ErrorBody(code=code, message="wanted x, found y", retry_after_seconds=0.01)
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=1) as client,
        pytest.raises(openai.APIStatusError),
    ):
        client.chat.completions.create(model=MODEL, messages=QUESTION, stream=stream)
    assert len(worker.generated) == num_asked


def test_the_deadline_is_met_once(
    url: str, worker: FakeWorker, *, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = services.settings.model_copy(update={"request_timeout_seconds": 0.5})
    monkeypatch.setitem(services.__dict__, "settings", hurried)
    worker.is_stuck = True
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=2) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert (caught.value.status_code, len(worker.generated)) == (504, 1)
