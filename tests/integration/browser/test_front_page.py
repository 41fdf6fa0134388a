"""What a user does on the front page, done in Chromium."""

import base64
import json
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


def send(page: Page, *, name: str, content: str, clicks: int = 1) -> str:
    """Fills the form as a user would, and says what the page answers."""
    waiting = page.value(
        f"""(() => {{
          const form = document.querySelector("#train"), chosen = new DataTransfer();
          chosen.items.add(new File([{json.dumps(content)}], "items.jsonl"));
          form.elements.vector.value = {json.dumps(name)};
          form.elements.file.files = chosen.files;
          for (let n = 0; n < {clicks}; n++) form.querySelector("button").click();
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


def test_what_the_server_notes_of_a_file_and_of_an_answer_is_told(url: str, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile") as page:
        page.open(url)
        send(page, name="parts", content=item())
        told = send(page, name="parts", content=item(answer="nut"))
        assert "The name parts meant the data set " in told
        page.value(
            """(() => {
              const own = window.fetch, text = "An animation";
              window.fetch = async (path, options) => {
                const response = await own(path, options);
                if (path !== "/steer/generate") return response;
                return Response.json({...(await response.json()), notes: [text]});
              };
            })()"""
        )
        page.value(ASK)
        page.wait_until("document.querySelectorAll('#answers dd').length === 4")
        assert page.value("document.querySelector('#answers').textContent").count("An animation")


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


def item(*, answer: str = "loop") -> str:
    """A line of a data set of one item."""
    picture = "data:image/png;base64," + base64.b64encode(png()).decode()
    return json.dumps({"image": picture, "question": "Which part?", "answer": answer})


ASK = """(() => {
  const form = document.querySelector("#ask"), button = form.querySelector("button");
  form.elements.question.value ||= "What is it?";
  button.click();
  button.click();
})()"""


def test_a_double_click_does_its_work_once(database: str, tmp_path: Path) -> None:
    settings = Settings.model_validate({"database_url": database, "data_dir": tmp_path / "data"})
    worker = FakeWorker()
    with (
        serving(create_app(settings, workers=worker.client())) as url,
        browsing(tmp_path / "profile") as page,
    ):
        page.open(url)
        for _ in range(2):
            page.value(ASK)
            page.wait_until("document.querySelectorAll('#answers dd').length === 2")
        assert len(worker.generated) == 4
        send(page, name="parts", content=item(), clicks=2)
        page.wait_until("document.querySelectorAll('#trainings .training').length > 0")
        for path in ("datasets", "train"):
            assert len(httpx.get(f"{url}/{path}", trust_env=False).json()["items"]) == 1


def test_a_picture_is_sent_once_at_a_time(url: str, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile") as page:
        page.open(url)
        page.value(
            """(() => {
              const own = window.fetch;
              let sending = 0;
              window.most = 0;
              window.fetch = async (path, options) => {
                if (path !== "/steer/generate") return own(path, options);
                window.most = Math.max(window.most, ++sending);
                return own(path, options).finally(() => sending--);
              };
            })()"""
        )
        page.value(ASK)
        page.wait_until("document.querySelectorAll('#answers dd').length === 2")
        assert page.value("window.most") == 1


@pytest.mark.parametrize(
    ("question", "answer", "told"),
    [
        ("x" * 40_000, None, "body.prompt: String should have at most 32768 characters"),
        ("q", "Promise.reject(new TypeError())", "The server cannot be reached"),
        ("q", "Promise.resolve(new Response('<html>', {status: 502}))", "The server answered 502"),
    ],
)
def test_what_went_wrong_is_told_in_words(
    url: str, tmp_path: Path, *, question: str, answer: str | None, told: str
) -> None:
    with browsing(tmp_path / "profile") as page:
        page.open(url)
        page.value(f"document.querySelector('#ask').elements.question.value = '{question}'")
        if answer is not None:
            page.value(f"window.fetch = () => {answer}")
        page.value(ASK)
        page.wait_until("document.querySelector('#answers .error') !== null")
        assert page.value("document.querySelector('#answers .error').textContent") == told
