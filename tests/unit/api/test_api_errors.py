import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, StreamingResponse

from app.api.http.errors import (
    CODE_OF_STATUS,
    STATUS_OF_CODE,
    error_handlers,
    status_of,
)
from app.api.http.metrics import ApiMetrics
from app.api.http.middleware import ObservedRequests, ProblemShim
from app.core import errors as core_errors
from app.core.cancellation import ClientGoneError
from app.core.errors import (
    BusyError,
    DeadlineExceededError,
    InvalidImageError,
    NotFoundError,
    UnavailableError,
    VLibraryError,
)

pytestmark = pytest.mark.anyio


class Body(BaseModel):
    id: UUID
    known: dict[str, int] = {}


RAISED: dict[str, Exception] = {
    "not-found": NotFoundError(
        "There is no vector x", details={"wanted": "x", "bad": float("nan")}
    ),
    "busy": BusyError("full", retry_after_seconds=2.2),
    "unavailable": UnavailableError("away"),
    "late": DeadlineExceededError("late"),
    "image": InvalidImageError("bad \ud800"),
    "operational": OperationalError("SELECT secret", {}, Exception("host secret")),
    "interface": InterfaceError("SELECT secret", {}, Exception("host secret")),
    "pool": PoolTimeoutError("secret"),
    "gone": ClientGoneError(),
    "disconnect": ClientDisconnect(),
    "crash": RuntimeError("secret"),
    "plain": VLibraryError("odd"),
}


def make_app() -> FastAPI:
    app = FastAPI(
        exception_handlers=error_handlers(),
        middleware=[Middleware(ObservedRequests, metrics=ApiMetrics({})), Middleware(ProblemShim)],
        redirect_slashes=False,
    )

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise RAISED[name]

    @app.post("/body")
    async def take(body: Body) -> str:
        return str(body.id)

    @app.get("/text")
    async def text() -> Response:
        return PlainTextResponse("a tale of internals", 502, headers={"x-secret": "1"})

    @app.get("/fine")
    async def fine(request: Request) -> Response:
        return Response(request.scope["state"]["request_id"], headers={"cache-control": "private"})

    @app.get("/half")
    async def half() -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("secret")

        return StreamingResponse(body())

    return app


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


def library_errors() -> list[type[VLibraryError]]:
    members = vars(core_errors).values()
    return [kind for kind in members if isinstance(kind, type) and issubclass(kind, VLibraryError)]


@pytest.mark.parametrize("kind", library_errors(), ids=lambda kind: kind.code)
async def test_every_library_error_has_its_own_row(kind: type[VLibraryError]) -> None:
    assert STATUS_OF_CODE[kind.code] == status_of(kind("x"))


async def test_an_error_without_a_row_takes_that_of_its_base() -> None:
    class TinyImageError(InvalidImageError):
        code = "tiny-image"

    assert status_of(TinyImageError("x")) == STATUS_OF_CODE["invalid-image"]


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("not-found", 404, "not-found"),
        ("busy", 429, "busy"),
        ("unavailable", 503, "unavailable"),
        ("late", 504, "deadline-exceeded"),
        ("image", 422, "invalid-image"),
        ("operational", 503, "unavailable"),
        ("interface", 503, "unavailable"),
        ("pool", 503, "unavailable"),
        ("plain", 500, "error"),
    ],
)
async def test_what_is_raised_becomes_a_problem(
    http: httpx.AsyncClient, *, name: str, status: int, code: str
) -> None:
    response = await http.get(f"/raise/{name}", headers={"x-request-id": "mine-1"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == f"urn:vlibrary:error:{code}"
    assert (body["code"], body["status"], body["request_id"]) == (code, status, "mine-1")
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status in {429, 503})


async def test_retry_after_is_rounded_up(http: httpx.AsyncClient) -> None:
    assert (await http.get("/raise/busy")).headers["retry-after"] == "3"
    assert (await http.get("/raise/unavailable")).headers["retry-after"] == "1"


async def test_details_are_json_whatever_they_hold(http: httpx.AsyncClient) -> None:
    assert (await http.get("/raise/not-found")).json()["details"] == {"wanted": "x", "bad": None}


async def test_a_crash_tells_the_log_and_not_the_caller(http: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs:
        response = await http.get("/raise/crash")
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert [entry["event"] for entry in logs] == ["request crashed", "request"]
    assert logs[1]["status"] == 500


async def test_a_crash_after_the_beginning_breaks_the_answer_off(http: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(RuntimeError):
        await http.get("/half")
    assert logs[0]["event"] == "request crashed"


@pytest.mark.parametrize("name", ["gone", "disconnect"])
async def test_a_client_that_left_gets_a_quiet_end(http: httpx.AsyncClient, name: str) -> None:
    with structlog.testing.capture_logs() as logs:
        assert (await http.get(f"/raise/{name}")).status_code == 499
    assert [entry["event"] for entry in logs] == ["request"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not-found"),
        ("DELETE", "/fine", 405, "method-not-allowed"),
        ("GET", "/fine/", 404, "not-found"),
    ],
)
async def test_what_routing_refuses_is_a_problem(
    http: httpx.AsyncClient, *, method: str, path: str, status: int, code: str
) -> None:
    response = await http.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert ("allow" in response.headers) == (status == 405)


async def test_plain_text_errors_are_replaced(http: httpx.AsyncClient) -> None:
    response = await http.get("/text")
    assert (response.status_code, response.json()["code"]) == (502, "error")
    assert "internals" not in response.text
    assert "x-secret" not in response.headers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "zz-secret"}', "Input should be a valid UUID"),
        ('{"id": 3}', "UUID input should be a string, bytes or UUID object"),
        ("{", "this is no JSON from character 1 on"),
        ('{"id": zz-secret}', "this is no JSON from character 7 on"),
        ('{"known": []}', "Field required"),
        ("[]", "Input should be a valid object"),
    ],
)
async def test_messages_about_input_do_not_quote_it(
    http: httpx.AsyncClient, content: str, message: str
) -> None:
    headers = {"content-type": "application/json"}
    response = await http.post("/body", content=content, headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["message"] == message
    assert "secret" not in response.text


@pytest.mark.parametrize("content", ['{"id": ' + "9" * 5000 + "}", "[" * 100_000])
async def test_a_body_that_no_parser_takes_is_said_so(
    http: httpx.AsyncClient, content: str
) -> None:
    headers = {"content-type": "application/json"}
    response = await http.post("/body", content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["detail"] == "The body of the request cannot be read"


@pytest.mark.parametrize(
    ("content", "encoding", "reason"),
    [
        (b"\x1f\x8b\x08", "gzip", "wanted it as it is, found a content-encoding"),
        (b'{"id": "\xe9"}', "identity", "wanted JSON in UTF-8"),
    ],
)
async def test_a_body_that_is_no_text_is_told_what_is_wanted(
    http: httpx.AsyncClient, *, content: bytes, encoding: str, reason: str
) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    response = await http.post("/body", content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["detail"] == f"The body of the request cannot be read: {reason}"


async def test_keys_that_the_caller_chose_are_cleaned_in_places(http: httpx.AsyncClient) -> None:
    body = {"id": "z", "known": {"a\r\n\ud800" + "b" * 500: "x"}}
    headers = {"content-type": "application/json"}
    response = await http.post("/body", content=json.dumps(body), headers=headers)
    places = [error["location"] for error in response.json()["errors"]]
    assert places[0] == "body.id"
    assert places[1].startswith("body.known.a??")
    assert places[1].isprintable()
    assert len(places[1]) <= 200


async def test_only_the_first_refusals_are_listed(http: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"id": "z", "known": {f"k{index}": "x" for index in range(500)}}
    errors = (await http.post("/body", json=body)).json()
    assert len(errors["errors"]) == 20
    assert errors["detail"].startswith("501 ")


@pytest.mark.parametrize("given", ["abc", "A.b-c_9", "a" * 64])
async def test_a_harmless_request_id_is_kept(http: httpx.AsyncClient, given: str) -> None:
    response = await http.get("/fine", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == response.text == given


@pytest.mark.parametrize("given", ["", "-a", "a b", "a" * 65, "a\tb", "é", "{}"])
async def test_any_other_request_id_is_replaced(http: httpx.AsyncClient, given: str) -> None:
    response = await http.get("/fine", headers=[(b"x-request-id", given.encode())])
    assert response.headers["x-request-id"] == response.text
    UUID(response.text)


async def test_answers_are_not_guessed_at_nor_kept(http: httpx.AsyncClient) -> None:
    response = await http.get("/fine")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "private"
    assert (await http.get("/text")).headers["cache-control"] == "no-store"


async def test_a_log_line_names_the_route_and_not_the_path(http: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs:
        await http.get("/raise/not-found")
        await http.get("/some-secret-path")
    lines = [entry for entry in logs if entry["event"] == "request"]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/raise/{name}", 404),
        ("-", 404),
    ]


async def test_statuses_have_codes_of_their_own() -> None:
    assert len(set(CODE_OF_STATUS.values())) == len(CODE_OF_STATUS)
