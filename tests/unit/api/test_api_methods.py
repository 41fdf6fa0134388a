import httpx
import pytest
from fastapi import FastAPI

from app.api.app import create_api
from app.api.dependencies import Services
from app.core.settings import Settings

pytestmark = pytest.mark.anyio


async def test_head_is_get_without_its_body(http: httpx.AsyncClient) -> None:
    whole, head = await http.get("/livez"), await http.head("/livez")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert (await http.head("/nothing")).status_code == 404


async def test_head_of_what_only_takes_posts_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.head("/retrieve")
    assert response.status_code == 405
    assert response.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/vectors", "GET, HEAD, OPTIONS, POST"),
        ("/vectors/some-name", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("/steer/generate", "OPTIONS, POST"),
    ],
)
async def test_options_and_refusals_name_every_method_of_a_path(
    http: httpx.AsyncClient, path: str, allowed: str
) -> None:
    answered = await http.options(path)
    assert (answered.status_code, answered.headers["allow"]) == (204, allowed)
    refused = await http.request("PUT", path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)


async def test_options_of_nothing_is_not_found(http: httpx.AsyncClient) -> None:
    assert (await http.options("/nothing")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:8000"}, 404),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 404),
    ],
)
async def test_pages_of_other_origins_cannot_write(
    http: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    assert (await http.post("/nothing", headers=headers)).status_code == status


@pytest.fixture
def shared(services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    listed = settings.model_copy(update={"cors_origins": ("https://app.example",)})
    monkeypatch.setitem(services.__dict__, "settings", listed)
    return create_api(services)


async def test_a_listed_origin_may_ask_and_write(shared: FastAPI) -> None:
    transport = httpx.ASGITransport(app=shared)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        for origin, is_listed in (("https://app.example", True), ("https://evil.example", False)):
            preflight = await http.options(
                "/v1/chat/completions",
                headers={
                    "origin": origin,
                    "access-control-request-method": "POST",
                    "access-control-request-headers": "authorization,content-type",
                },
            )
            allowed = preflight.headers.get("access-control-allow-origin")
            assert (preflight.status_code == 200) == is_listed
            assert allowed == (origin if is_listed else None)
            headers = {"origin": origin, "sec-fetch-site": "cross-site"}
            written = await http.post("/nothing", headers=headers)
            assert written.status_code == (404 if is_listed else 403)


async def test_pages_of_a_listed_origin_can_read_what_clients_heed(shared: FastAPI) -> None:
    transport = httpx.ASGITransport(app=shared)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        answer = await http.get("/livez", headers={"origin": "https://app.example"})
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    wanted = {"retry-after", "x-should-retry", "location", "etag", "idempotency-replayed"}
    assert wanted < set(exposed)


@pytest.mark.parametrize("origin", ["app.example", "ftp://x", "https://a.example/path"])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(ValueError, match="an origin is given as"):
        Settings.model_validate({"cors_origins": origin})
