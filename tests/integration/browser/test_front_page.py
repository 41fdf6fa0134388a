"""What a user does on the front page, done in Chromium."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.core.settings import Settings
from app.main import create_app
from tests.fakes.api_calls import png
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker, backbone, client_of
from tests.integration.browser.chromium import PROGRAM, Page, browsing

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="needs Debian's package chromium"),
]


@pytest.fixture
def url(database: str, tmp_path: Path) -> Iterator[str]:
    settings = Settings.model_validate({"database_url": database, "data_dir": tmp_path / "data"})
    with serving(create_app(settings, workers=FakeWorker().client())) as served:
        yield served


def send(page: Page, *, name: str, content: str) -> str:
    """Fills the form as a user would, and says what the page answers."""
    waiting = page.value(
        f"""(() => {{
          const form = document.querySelector("#train"), chosen = new DataTransfer();
          chosen.items.add(new File([{json.dumps(content)}], "items.jsonl"));
          form.elements.vector.value = {json.dumps(name)};
          form.elements.file.files = chosen.files;
          form.querySelector("button").click();
          return document.querySelector("#received").textContent;
        }})()"""
    )
    assert waiting.endswith("every row and picture is checked: 0 s")
    page.wait_until("document.querySelector('#received progress') === null")
    return str(page.value("document.querySelector('#received').textContent"))


def test_a_file_of_items_becomes_a_training(url: str, tmp_path: Path) -> None:
    picture = "data:image/png;base64," + base64.b64encode(png()).decode()
    row = {"image": picture, "question": "Which part?", "answer": "loop"}
    with browsing(tmp_path / "profile") as page:
        page.open(url)
        assert "answer" in send(page, name="parts", content=json.dumps({"image": picture}))
        told = send(page, name="parts", content=json.dumps(row))
        assert told == "Items: 1, pictures: 1."
        page.wait_until("document.querySelectorAll('#trainings .training').length === 1")
    (job,) = httpx.get(f"{url}/train", trust_env=False).json()["items"]
    assert (job["name"], job["state"]) == ("parts", "queued")


def test_a_name_that_is_none_is_told_before_a_file_is_sent(url: str, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile") as page:
        page.open(url)
        judged = page.value(
            """(() => {
              const name = document.querySelector("#train").elements.vector;
              return ["My Parts", "my/parts", "my-parts_2.1"].map((text) => {
                name.value = text;
                return name.checkValidity();
              });
            })()"""
        )
    assert judged == [False, False, True]


def test_of_several_backbones_the_chosen_one_is_asked_and_trained(
    database: str, tmp_path: Path
) -> None:
    workers = {f"http://{digit}": FakeWorker(description=backbone(digit)) for digit in "ab"}
    settings = Settings.model_validate({"database_url": database, "data_dir": tmp_path / "data"})
    picture = "data:image/png;base64," + base64.b64encode(png()).decode()
    row = {"image": picture, "question": "Which part?", "answer": "loop"}
    with (
        serving(create_app(settings, workers=client_of(workers))) as url,
        browsing(tmp_path / "profile") as page,
    ):
        page.open(url)
        page.wait_until("document.querySelector('#backbones').hidden === false")
        page.value(
            """(() => {
              const select = document.querySelector("#backbone");
              select.selectedIndex = [...select.options].findIndex((one) => one.text === "fake-b");
              select.dispatchEvent(new Event("change"));
              const form = document.querySelector("#ask");
              form.elements.question.value = "what is it?";
              form.querySelector("button").click();
            })()"""
        )
        page.wait_until("document.querySelectorAll('#answers dd').length === 2")
        assert send(page, name="parts", content=json.dumps(row)) == "Items: 1, pictures: 1."
        (job,) = httpx.get(f"{url}/train", trust_env=False).json()["items"]
    assert job["backbone_fingerprint"] == "b" * 64
    assert workers["http://a"].generated == []
    assert len(workers["http://b"].generated) == 2
