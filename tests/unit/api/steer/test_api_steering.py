import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from PIL import Image

from app.rpc.generation import AppliedVector, GenerateResponse
from app.rpc.messages import ErrorBody, GenerateRequest
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio


def png(width: int = 16, height: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, format="PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def steer(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await http.post("/steer/generate", json={"prompt": "What colour?", **body})


async def test_an_unsteered_answer_says_that_nothing_was_applied(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    response = await steer(http, images=[b64(png())], baseline=True, stop=["\n"], seed=3)
    assert response.status_code == 200
    body = response.json()
    assert (body["text"], body["applied"], body["retrieval"]) == ("plain", [], None)
    assert body["baseline"]["text"] == "plain"
    assert body["receipt"]["kl_first_token"] == 0.25
    assert body["backbone"] == {"fingerprint": "a" * 64, "name": "fake-a"}
    assert body["id"] == response.headers["x-request-id"]
    (asked,) = worker.generated
    assert asked.images == (png(),)
    assert (asked.request_id, asked.seed, asked.stop) == (body["id"], 3, ("\n",))


async def test_a_data_url_is_the_same_image(http: httpx.AsyncClient, worker: FakeWorker) -> None:
    await steer(http, images=["data:image/png;base64," + b64(png())])
    assert worker.generated[0].images == (png(),)


async def test_vectors_in_an_unsteered_receipt_are_not_believed(
    http: httpx.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = worker._answer

    def dishonest(request: GenerateRequest) -> GenerateResponse:
        answer = honest(request)
        receipt = answer.receipt.model_copy(
            update={"vectors": (AppliedVector(sha256="b" * 64, strength=1.0),)}
        )
        return answer.model_copy(update={"receipt": receipt})

    monkeypatch.setattr(worker, "_answer", dishonest)
    response = await steer(http)
    assert (response.status_code, response.json()["code"]) == (500, "steering-failed")


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"strength": 1e30}, "body.strength"),
        ({"strength": 5}, "body"),
        ({"strength": 0, "stream": True}, "body"),
        ({"strength": "1"}, "body.strength"),
        ({"strength": True}, "body.strength"),
        ({"max_tokens": 10**9}, "body.max_tokens"),
        ({"max_tokens": 1.5}, "body.max_tokens"),
        ({"temperature": -1}, "body.temperature"),
        ({"top_p": -0.1}, "body.top_p"),
        ({"seed": 2**70}, "body.seed"),
        ({"prompt": ""}, "body.prompt"),
        ({"prompt": "a\x00b"}, "body.prompt"),
        ({"prompt": "x" * 40_000}, "body.prompt"),
        ({"images": ["x"] * 65}, "body.images"),
        ({"images": [3]}, "body.images.0"),
        ({"stop": [""]}, "body.stop.0"),
        ({"vector": ["a"] * 9}, "body.vector"),
        ({"vector": {"ref": "a", "strength": 11}}, "body.vector"),
        ({"demonstrations": {"dataset": "d", "shots": 65}}, "body.demonstrations.shots"),
        ({"nonsense": 1}, "body.nonsense"),
    ],
)
async def test_what_is_out_of_bounds_is_refused_with_its_place(
    http: httpx.AsyncClient, worker: FakeWorker, *, body: dict[str, Any], location: str
) -> None:
    response = await steer(http, **body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert any(error["location"].startswith(location) for error in response.json()["errors"])
    assert worker.generated == []


@pytest.mark.parametrize(
    ("vector", "errors"),
    [
        (
            "",
            {
                "body.vector": "String should have at least 1 character; or "
                "Input should be a valid object; or Input should be a valid list"
            },
        ),
        (
            {"name": "a"},
            {
                "body.vector": "Input should be a valid string; or Input should be a valid list",
                "body.vector.ref": "Field required",
                "body.vector.name": "Extra inputs are not permitted",
            },
        ),
    ],
)
async def test_what_has_several_forms_is_refused_in_words_of_the_caller(
    http: httpx.AsyncClient, *, vector: object, errors: dict[str, str]
) -> None:
    problem = (await steer(http, vector=vector)).json()
    assert {one["location"]: one["message"] for one in problem["errors"]} == errors
    assert problem["detail"].startswith(f"{len(errors)} part(s)")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "11"])
async def test_what_is_not_finite_is_told_the_bounds(http: httpx.AsyncClient, number: str) -> None:
    for name in ("strength", "temperature"):
        response = await http.post(
            "/steer/generate",
            content=f'{{"prompt": "q", "{name}": {number}}}',
            headers={"content-type": "application/json"},
        )
        messages = [error["message"] for error in response.json()["errors"]]
        assert "Input should be less than or equal to 10" in messages


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "q", "strength": NaN}',
        '{"prompt": "q", "strength": Infinity}',
        '{"prompt": "q", "strength": 1e999}',
        '{"prompt": "\\ud800"}',
        '{"prompt": "q", "\\ud800": 1}',
        '{"prompt": "q", "seed": ' + "9" * 4000 + "}",
        '{"prompt": ' + "[" * 3000 + "]" * 3000 + "}",
        '"just text"',
        "null",
        "{",
        "",
    ],
)
async def test_what_json_allows_and_we_do_not_is_no_crash(
    http: httpx.AsyncClient, text: str
) -> None:
    response = await http.post(
        "/steer/generate", content=text, headers={"content-type": "application/json"}
    )
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"
    # Four nines in a row may stand in an id.
    assert "9999" not in str(response.json() | {"request_id": None})


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"timestamp": 3}, "messages.1.timestamp"),
        ({"content": [{"type": "text", "text": "q", "tools": 3}]}, "messages.1.content.0.tools"),
    ],
)
async def test_an_unknown_field_of_a_message_is_told_with_its_place(
    http: httpx.AsyncClient, message: dict[str, Any], place: str
) -> None:
    asked = {"role": "user", "content": "q"}
    response = await http.post("/steer/generate", json={"messages": [asked, asked | message]})
    problem = response.json()
    assert (response.status_code, problem["details"]["param"]) == (422, place)
    assert problem["detail"].startswith(f"{place}: ")


async def test_the_input_is_never_echoed(http: httpx.AsyncClient) -> None:
    secret = "hunter2"  # noqa: S105 - stands for what a caller typed
    response = await steer(http, prompt=secret + "\x00", strength=secret, vector={"ref": 3})
    assert response.status_code == 422
    assert secret not in response.text


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        ("not base64!", 422, "invalid-image"),
        ("http://169.254.169.254/", 422, "invalid-image"),
        ("data:image/svg+xml;base64,AAAA", 422, "invalid-image"),
        ("data:image/png,AAAA", 422, "invalid-image"),
        (b64(b"GIF89a" + b"0" * 50), 422, "invalid-image"),
        (b64(png()[:30]), 422, "invalid-image"),
        (b64(png(200, 200)), 422, "invalid-image"),
        (b64(png(4, 4)), 422, "invalid-image"),
        (b64(png(8, 200)), 422, "invalid-image"),
        (b64(b"\x00" * 100_004), 413, "too-large"),
    ],
)
async def test_images_that_are_not_taken(
    http: httpx.AsyncClient, worker: FakeWorker, *, image: str, status: int, code: str
) -> None:
    response = await steer(http, images=[image])
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert worker.generated == []


async def test_too_many_images_are_refused(http: httpx.AsyncClient) -> None:
    response = await steer(http, images=[b64(png())] * 3)
    assert (response.status_code, response.json()["details"]) == (413, {"wanted": 2, "found": 3})


async def test_more_tokens_than_the_server_generates_are_refused(http: httpx.AsyncClient) -> None:
    response = await steer(http, max_tokens=65)
    assert (response.status_code, response.json()["details"]["wanted"]) == (422, 64)


async def test_a_body_over_the_limit_is_refused_before_it_is_read(http: httpx.AsyncClient) -> None:
    announced = await http.post("/steer/generate", content=b"{" + b" " * 1_000_001)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 100_000

    unannounced = await http.post(
        "/steer/generate", content=endless(), headers={"content-type": "application/json"}
    )
    for response in (announced, unannounced):
        assert response.status_code == 413
        assert response.json()["code"] == "too-large"
        assert response.json()["detail"].endswith("wanted at most 1000000 bytes")
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("code", "status", "retry_after"),
    [
        ("busy", 429, "3"),
        ("out-of-device-memory", 503, "3"),
        ("deadline-exceeded", 504, None),
        ("steering-failed", 500, None),
        ("invalid-input", 422, None),
        ("something-new", 500, None),
    ],
)
async def test_errors_of_the_worker_keep_their_code(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    *,
    code: str,
    status: int,
    retry_after: str | None,
) -> None:
    worker.error = ErrorBody(code=code, message="wanted x, found y", retry_after_seconds=2.4)
    response = await steer(http)
    assert response.status_code == status
    assert response.json()["detail"] == "wanted x, found y"
    assert response.headers.get("retry-after") == retry_after


@pytest.mark.parametrize("change", [{"is_down": True}, {"status": "draining"}, {"role": "train"}])
async def test_without_a_serving_worker_the_answer_is_503(
    http: httpx.AsyncClient, worker: FakeWorker, change: dict[str, Any]
) -> None:
    for name, value in change.items():
        setattr(worker, name, value)
    response = await steer(http)
    assert (response.status_code, response.json()["code"]) == (503, "worker-unavailable")
    assert int(response.headers["retry-after"]) >= 1


async def test_a_vector_needs_the_database(http: httpx.AsyncClient) -> None:
    response = await steer(http, vector="colours@1")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "127.0.0.1" not in response.text


@pytest.mark.parametrize("ref", ["UPPER", "a@", "@1", "a@0", "a@99999999999", "a b"])
async def test_a_malformed_reference_is_refused(http: httpx.AsyncClient, ref: str) -> None:
    response = await steer(http, vector=ref)
    assert (response.status_code, response.json()["code"]) == (422, "invalid-input")
