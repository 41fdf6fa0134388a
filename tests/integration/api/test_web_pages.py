import re

import httpx
import pytest
from fastapi import FastAPI

from app.api.schemas.examples import BODIES
from app.web.pages import ASSETS, STATIC

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_loads_only_what_ships_with_it(http: httpx.AsyncClient, path: str) -> None:
    page = await http.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    loaded = re.findall(r'(?:src|<link[^>]* href)="([^"]+)"', page.text)
    assert len(loaded) >= 3
    for url in loaded:
        assert url == "data:," or (await http.get(url)).status_code == 200, url
    assert "<script>" not in page.text
    assert " style=" not in page.text


async def test_the_front_page_leads_somewhere(http: httpx.AsyncClient) -> None:
    links = re.findall(r'<a href="([^"]+)"', (await http.get("/")).text)
    assert len(links) >= 4
    for link in links:
        assert (await http.get(link)).status_code in {200, 503}, link


def test_pages_write_what_is_stored_as_text_alone() -> None:
    """Markup in a name, a description or an answer is shown and never read as markup."""
    own = [STATIC / path for name, (path, _) in ASSETS.items() if name in {"page.js", "docs.js"}]
    assert len(own) == 2
    for path in own:
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\b|new Function",
            path.read_text(),
        )
        assert not found, path


@pytest.mark.parametrize("name", sorted(ASSETS))
async def test_assets_have_their_types(http: httpx.AsyncClient, name: str) -> None:
    found = await http.get(f"/docs/{name}")
    assert found.status_code == 200
    assert found.headers["content-type"].split(";")[0] == ASSETS[name][1]
    assert len(found.content) > 50
    assert (await http.head(f"/docs/{name}")).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpages.py", "%2e%2e/pages.py"])
async def test_nothing_else_is_served(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.get(f"/docs/{name}")).status_code == 404


async def test_every_example_is_what_its_route_takes(http: httpx.AsyncClient, api: FastAPI) -> None:
    shown = api.openapi()["paths"]
    for (method, path), body in BODIES.items():
        content = shown[path][method]["requestBody"]["content"]["application/json"]
        assert content["example"] == body
        response = await http.request(method, path, json=body)
        assert response.status_code not in {400, 422}, (path, response.text)
