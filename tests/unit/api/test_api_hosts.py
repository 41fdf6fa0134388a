import httpx
import pytest

from app.api.app import allowed_hosts, create_api
from app.api.dependencies import Services
from app.cli.processes.ports import url_of
from app.core.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000"]
)
async def test_own_names_are_answered(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get("/livez", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "", "127.0.0.2", "a b"]
)
async def test_other_names_are_not(http: httpx.AsyncClient, host: str) -> None:
    response = await http.get("/livez", headers={"host": host})
    assert (response.status_code, response.json()["code"]) == (400, "bad-request")
    assert response.headers["content-type"] == "application/problem+json"
    assert "VLIBRARY_ALLOWED_HOSTS" in response.json()["detail"]


async def test_a_page_of_another_site_is_told_what_allows_it(http: httpx.AsyncClient) -> None:
    response = await http.post("/nothing", headers={"origin": "http://localhost:3000"})
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert "VLIBRARY_CORS_ORIGINS" in response.json()["detail"]


@pytest.mark.parametrize(
    ("site", "status"),
    [("cross-site", 403), ("same-site", 403), ("same-origin", 404), ("none", 404)],
)
async def test_pages_of_other_sites_cannot_write(
    http: httpx.AsyncClient, site: str, status: int
) -> None:
    headers = {"sec-fetch-site": site}
    response = await http.post("/nothing", headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert (await http.get("/livez", headers=headers)).status_code == 200


async def test_behind_a_proxy_names_are_not_ours_to_check(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104 - nothing listens
    monkeypatch.setitem(services.__dict__, "settings", public)
    transport = httpx.ASGITransport(app=create_api(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://my.example") as http:
        assert (await http.get("/livez")).status_code == 200


@pytest.mark.parametrize("host", ["127.8.8.8", "192.168.1.5", "fd00::1", "lab.internal"])
async def test_the_own_address_is_answered_beside_other_names(
    services: Services, settings: Settings, *, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As `vlibrary serve` asks whether the api is ready.
    named = {"host": host, "allowed_hosts": ("my.example",)}
    monkeypatch.setitem(services.__dict__, "settings", settings.model_copy(update=named))
    transport = httpx.ASGITransport(app=create_api(services))
    answers = {url_of(host, 8000): 200, "http://my.example": 200, "http://other.example": 400}
    async with httpx.AsyncClient(transport=transport) as http:
        for url, status in answers.items():
            assert (await http.get(f"{url}/livez")).status_code == status


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
async def test_loopback_is_recognised(settings: Settings, host: str) -> None:
    assert "*" not in allowed_hosts(settings.model_copy(update={"host": host}))
