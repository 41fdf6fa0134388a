"""What the front page lists: it follows the server, and leaves alone what somebody is at."""

import asyncio
from pathlib import Path

import httpx
import pytest

from app.core.settings import Settings
from app.library.access.access_keys import create_access_key, revoke_access_key
from app.library.database import opened
from app.library.workspaces import in_workspace
from app.main import create_app
from tests.fakes.api_calls import OCTETS, parquet
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.training import vector_file
from tests.integration.browser.chromium import PROGRAM, Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="needs Debian's package chromium"),
]


def store(url: str, name: str, *, seed: int = 0) -> str:
    """The id of a vector that somebody else stores."""
    content = vector_file(FakeWorker().description, seed=seed)
    made = httpx.post(
        f"{url}/vectors", params={"name": name}, content=content, headers=OCTETS, trust_env=False
    )
    return str(made.raise_for_status().json()["id"])


def test_what_others_store_appears_and_what_is_opened_and_chosen_stays(
    url: str, page: Page
) -> None:
    page.open(url)
    page.wait_until("document.querySelector('#vectors').textContent.startsWith('None yet')")
    chosen = store(url, "gears")
    page.wait_until("document.querySelectorAll('#vectors details').length === 1")
    page.value("document.querySelector('#vectors details').open = true")
    page.value("document.querySelector('#ask').elements.vector.selectedIndex = 1")
    store(url, "parts", seed=1)
    page.wait_until("document.querySelectorAll('#vectors details').length === 2")
    page.wait_until(f"document.getElementById('vector-{chosen}').querySelector('p') !== null")
    shown = "[...document.querySelectorAll('#vectors details')].map((one) => one.open)"
    assert page.value(shown) == [False, True]
    assert page.value("document.querySelector('#ask').elements.vector.value") == chosen


def test_what_is_as_it_was_is_left_alone(url: str, page: Page, tmp_path: Path) -> None:
    """So that what somebody marks to copy it, or what is being read out, stays."""
    stored = httpx.post(
        f"{url}/datasets", params={"name": "parts"}, content=parquet(tmp_path), headers=OCTETS,
        trust_env=False, timeout=60,
    ).raise_for_status().json()  # fmt: skip
    asked = {"name": "gears", "dataset": stored["id"]}
    httpx.post(f"{url}/train", json=asked, trust_env=False).raise_for_status()
    page.open(url)
    page.wait_until("document.querySelectorAll('#trainings .training').length === 1")
    page.value("window.shown = document.querySelector('#trainings .training')")
    asks = sum("/train?" in one for one in page.requested)
    page.wait_until(
        f"performance.getEntriesByType('resource').filter((one) => one.name.includes('/train?'))"
        f".length > {asks + 1}"
    )
    assert page.value("window.shown.isConnected")


def test_a_server_that_was_away_is_shown_when_it_is_back(url: str, page: Page) -> None:
    page.open(url)
    page.value("window.own = window.fetch; window.fetch = () => Promise.reject(new TypeError())")
    for place in ("vectors", "trainings"):
        told = f"document.querySelector('#{place}').textContent"
        page.wait_until(f"{told} === 'The server cannot be reached'")
    store(url, "gears")
    page.value("window.fetch = window.own")
    page.wait_until("document.querySelectorAll('#vectors details').length === 1")


def test_a_key_is_asked_for_whenever_there_is_none_that_opens(
    database: str, page: Page, tmp_path: Path
) -> None:
    wanted = {"database_url": database, "data_dir": tmp_path / "data", "require_keys": True}
    settings = Settings.model_validate(wanted)

    async def change_keys(revoked: str | None = None) -> tuple[str, str]:
        async with (
            opened(database, pool_size=1) as sessions,
            in_workspace(sessions, "default").begin() as session,
        ):
            if revoked is not None:
                await revoke_access_key(session, revoked)
            key, token = await create_access_key(session, name="x", scopes=["read"])
        return key.id, token.text

    key_id, token = asyncio.run(change_keys())
    with serving(create_app(settings, workers=FakeWorker().client())) as url:
        page.open(url)
        for text in ("vlib_0123456789abcdef_wrong", f" {token} "):
            page.wait_until("document.querySelector('#access').hidden === false")
            page.value(
                f"""(() => {{
                  const form = document.querySelector("#access");
                  form.elements.key.value = {text!r};
                  form.querySelector("button").click();
                }})()"""
            )
        page.wait_until("document.querySelector('#vectors').textContent.startsWith('None yet')")
        assert page.value("document.querySelector('#access').hidden")
        asyncio.run(change_keys(key_id))
        page.wait_until("document.querySelector('#access').hidden === false")


def test_what_is_no_key_is_told_before_it_is_sent(url: str, page: Page) -> None:
    """A request cannot carry it, which would look as if the server were away."""
    page.open(url)
    judged = page.value(
        """["", "vlib_→", "vlib_0_a b", " vlib_0_a-b_c "].map((text) => {
          const { key } = document.querySelector("#access").elements;
          key.value = text;
          return key.checkValidity();
        })"""
    )
    assert judged == [False, False, False, True]


def test_bars_have_names_and_passing_seconds_are_not_read_out(url: str, page: Page) -> None:
    page.open(url)
    page.value(
        """(() => {
          const own = window.fetch;
          window.fetch = (path, options) =>
            path.startsWith("/datasets") ? new Promise(() => {}) : own(path, options);
          const form = document.querySelector("#train"), chosen = new DataTransfer();
          chosen.items.add(new File(["{}"], "items.jsonl"));
          form.elements.vector.value = "parts";
          form.elements.file.files = chosen.files;
          form.querySelector("button").click();
        })()"""
    )
    page.wait_until("document.querySelector('#received progress') !== null")
    assert page.value("document.querySelector('#received progress').ariaLabel")
    assert page.value("document.querySelector('#received span').ariaLive") == "off"


def test_an_answer_keeps_its_lines_and_nothing_is_wider_than_a_phone(url: str, page: Page) -> None:
    store(url, "g" * 100)
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=320,
        height=640,
        deviceScaleFactor=1,
        mobile=True,
    )
    page.open(url)
    page.wait_until("document.querySelectorAll('#vectors details').length === 1")
    page.value(
        """(() => {
          const row = document.createElement("dd");
          row.textContent = `one\\ntwo ${"x".repeat(200)}`;
          document.querySelector("#answers").append(row);
        })()"""
    )
    assert page.value("document.documentElement.scrollWidth") <= 320
    assert page.value("document.querySelector('#answers dd').innerText").startswith("one\ntwo")
