"""Markup in all that can be stored, on the pages of the service and in notebooks, in Chromium.

Whoever may store something must not reach the browser of whoever looks at it.
"""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app.core.settings import Settings
from app.library.database import make_engine, session_factory
from app.main import create_app
from app.rpc.generation import GenerateResponse
from app.rpc.messages import GenerateRequest
from tests.fakes.api_calls import OCTETS, parquet
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.training import fail, vector_file
from tests.integration.browser.chromium import PROGRAM, Page
from vlibrary_client import Client

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="needs Debian's package chromium"),
]

SCRIPT = "window.reached = 1"
PAYLOADS = (
    f"<script>{SCRIPT}</script>",
    f'"><img src=x onerror="{SCRIPT}">',
    f"</option></select><svg onload={SCRIPT.replace(' ', '')}>",
    f"<iframe srcdoc='<script>parent.{SCRIPT}</script>'></iframe>",
    f"<a href='javascript:{SCRIPT}'>here</a><details open ontoggle='{SCRIPT}'>",
    "<img src='http://192.0.2.1/seen'><base href='http://192.0.2.1/'>",
)
TEXT = " ".join(PAYLOADS)
WRITTEN = "script:not([src]), img, svg, iframe, base, a[href^='javascript'], [onerror], [ontoggle]"
MEASURED = {"items": 4, "accuracy": 0.5, "low": 0.4, "high": 0.6}


class EchoingWorker(FakeWorker):
    """Answers with markup, as a backbone may."""

    def _answer(self, request: GenerateRequest) -> GenerateResponse:
        return super()._answer(request).model_copy(update={"text": TEXT})


class Stored(NamedTuple):
    """A service that holds markup wherever it takes text."""

    url: str
    vector_id: str
    dataset_id: str
    table: str


def fill(url: str, database: str, *, worker: FakeWorker, folder: Path) -> Stored:
    """Stores markup in every place that takes text."""
    tags = [payload[:100] for payload in PAYLOADS]
    described = {"description": TEXT}
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        made = http.post(
            "/vectors", params={"name": "gears", "tags": tags, **described},
            content=vector_file(worker.description), headers=OCTETS,
        ).raise_for_status().json()  # fmt: skip
        measured = {**dict(zip(("dataset", "split", "scorer"), PAYLOADS, strict=False)), **MEASURED}
        path = f"/vectors/{made['id']}/evaluations"
        http.post(path, json=measured).raise_for_status()
        dataset = http.post(
            "/datasets", params={"name": "parts", **described}, content=parquet(folder),
            headers=OCTETS,
        ).raise_for_status().json()  # fmt: skip
        asked = {"name": "gears", "dataset": dataset["id"]}
        job = http.post("/train", json=asked).raise_for_status().json()
    with Client(url) as client:
        table = client.vectors.list()._repr_html_()

    async def end() -> None:
        engine = make_engine(database, pool_size=1)
        await fail(session_factory(engine), uuid.UUID(job["id"]), code="error", message=TEXT)
        await engine.dispose()

    asyncio.run(end())
    return Stored(url, made["id"], dataset["id"], table)


@pytest.fixture
def stored(database: str, tmp_path: Path) -> Iterator[Stored]:
    worker = EchoingWorker()
    settings = Settings.model_validate({"database_url": database, "data_dir": tmp_path / "data"})
    with serving(create_app(settings, workers=worker.client())) as url:
        yield fill(url, database, worker=worker, folder=tmp_path)


def was_reached(page: Page) -> bool:
    return page.value("window.reached") is not None or bool(page.dialogs)


def show(page: Page, markup: str) -> None:
    """A page of this markup, without any policy."""
    page.open("about:blank")
    frame = page.call("Page.getFrameTree")["frameTree"]["frame"]["id"]
    page.call("Page.setDocumentContent", frameId=frame, html=markup)


def test_the_payloads_reach_a_page_that_takes_them_as_markup(page: Page) -> None:
    for payload in PAYLOADS[:3]:
        show(page, payload)
        page.wait_until("window.reached === 1")


def test_the_front_page_shows_markup_as_text(page: Page, stored: Stored) -> None:
    page.open(stored.url)
    page.wait_until("document.querySelectorAll('#vectors details').length === 1")
    page.wait_until("document.querySelectorAll('#trainings .error').length === 1")
    page.value("document.querySelector('#vectors details').open = true")
    page.wait_until("document.querySelectorAll('#vectors table').length === 1")
    page.value(f"document.querySelector('#ask').elements.question.value = {TEXT!r}")
    page.value("document.querySelector('#ask button').click()")
    page.wait_until("document.querySelectorAll('#answers dd').length === 2")
    for place, wanted in (
        ("#vectors p", TEXT),
        ("#vectors table", PAYLOADS[0]),
        ("#vectors table", PAYLOADS[1]),
        ("#trainings .error", TEXT),
        ("#answers dd", TEXT),
    ):
        shown = page.value(
            f"[...document.querySelectorAll('{place}')].map((one) => one.textContent).join()"
        )
        assert wanted in shown, place
    assert page.value(f"document.querySelectorAll(`main :is({WRITTEN})`).length") == 0
    assert not was_reached(page)
    strangers = [url for url in page.requested if not url.startswith((stored.url, "data:"))]
    assert strangers == []


@pytest.mark.parametrize(
    "path",
    [
        "/vectors",
        "/vectors/{vector_id}",
        "/datasets/{dataset_id}",
        "/train",
        "/audit",
        "/vectors?name=<script>window.reached=1</script>",
        "/vectors/<img src=x onerror=window.reached=1>",
        "/docs",
    ],
)
def test_no_route_is_read_as_a_page(page: Page, stored: Stored, path: str) -> None:
    page.open(stored.url + path.format(**stored._asdict()))
    if path == "/docs":
        page.wait_until("document.querySelectorAll('.opblock').length > 10")
    else:
        kind: Any = page.value("document.contentType")
        assert kind in {"application/json", "application/problem+json"}
    assert not was_reached(page)
    assert all(url.startswith((stored.url, "data:")) for url in page.requested)


def test_a_table_of_a_notebook_shows_markup_as_text(page: Page, stored: Stored) -> None:
    assert "gears" in stored.table
    show(page, stored.table)
    page.wait_until("document.body.textContent.includes('gears')")
    assert page.value(f"document.querySelectorAll(`{WRITTEN}`).length") == 0
    assert not was_reached(page)
