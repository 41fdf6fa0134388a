"""Who answers where several backbones are served."""

from dataclasses import replace

import httpx
import pytest

from app.api.dependencies import Services
from app.core.settings import Settings
from app.library.database import make_engine
from app.main import make_services
from tests.fakes.servers.worker import DIMENSION, FakeWorker, backbone, client_of
from tests.unit.api.conftest import NOWHERE

pytestmark = pytest.mark.anyio
ASK = {"prompt": "What colour?"}


@pytest.fixture
def other() -> FakeWorker:
    return FakeWorker(description=backbone("b"))


@pytest.fixture
def services(settings: Settings, worker: FakeWorker, other: FakeWorker) -> Services:
    workers = client_of({"http://one": worker, "http://two": other})
    return make_services(settings, engine=make_engine(NOWHERE), workers=workers)


@pytest.mark.parametrize("name", ["b" * 64, "fake-b"])
async def test_the_backbone_that_is_asked_for_answers(
    http: httpx.AsyncClient, worker: FakeWorker, *, other: FakeWorker, name: str
) -> None:
    answer = await http.post("/steer/generate", json={**ASK, "backbone": name})
    assert answer.json()["backbone"]["fingerprint"] == "b" * 64
    assert (len(worker.generated), len(other.generated)) == (0, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/steer/generate", ASK),
        ("/steer/generate", {**ASK, "stream": True}),
        ("/steer/generate", {**ASK, "vector": "auto"}),
        ("/retrieve", {"text": "What colour?"}),
        ("/retrieve", {"embedding": [1.0] * DIMENSION}),
    ],
)
async def test_without_one_the_ambiguity_is_refused(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    *,
    other: FakeWorker,
    path: str,
    body: dict[str, object],
) -> None:
    answer = await http.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")
    assert answer.json()["details"] == {
        "param": "backbone",
        "wanted": {"a" * 64: "fake-a", "b" * 64: "fake-b"},
    }
    assert [*worker.generated, *other.generated, *worker.embedded, *other.embedded] == []


async def test_a_query_is_embedded_by_the_backbone_that_is_asked_for(
    http: httpx.AsyncClient, worker: FakeWorker, other: FakeWorker
) -> None:
    # The database is away, so only the embedding is made.
    await http.post("/retrieve", json={"text": "q", "backbone": "fake-b"})
    assert (len(worker.embedded), len(other.embedded)) == (0, 1)


@pytest.mark.parametrize("path", ["/steer/generate", "/retrieve"])
async def test_a_backbone_that_nobody_serves_is_told_wanted_and_found(
    http: httpx.AsyncClient, path: str
) -> None:
    ask = {"prompt": "q"} if path == "/steer/generate" else {"text": "q"}
    answer = await http.post(path, json={**ask, "backbone": "none"})
    assert (answer.status_code, answer.json()["code"]) == (409, "incompatible-backbone")
    assert answer.json()["details"] == {"wanted": ["fake-a", "fake-b"], "found": "none"}


async def test_of_two_with_one_name_the_fingerprint_is_wanted(
    http: httpx.AsyncClient, worker: FakeWorker, other: FakeWorker
) -> None:
    other.description = replace(other.description, name="fake-a")
    answer = await http.post("/steer/generate", json={**ASK, "backbone": "fake-a"})
    assert (answer.status_code, answer.json()["details"]["param"]) == (422, "backbone")
    answer = await http.post("/steer/generate", json={**ASK, "backbone": "b" * 64})
    assert answer.json()["backbone"]["fingerprint"] == "b" * 64
    assert worker.generated == []


async def test_readiness_tells_how_many_workers_serve_each(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    checks = (await http.get("/readyz")).json()["checks"]
    own = worker.description.name
    assert checks["worker"]["detail"] == f"1 serving {own}, 1 serving fake-b"
