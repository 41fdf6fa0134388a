"""What the api shows of its work on a real database."""

import httpx
import pytest

from tests.fakes.exposition import parse_metrics
from tests.fakes.servers.worker import FakeWorker, embedding_of
from tests.fakes.training import Sessions, store_vector

pytestmark = pytest.mark.anyio


async def _shown(http: httpx.AsyncClient) -> dict[str, float]:
    return parse_metrics((await http.get("/metrics")).text)


async def test_searches_are_counted_by_what_came_out(
    http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
) -> None:
    await http.post("/retrieve", json={"text": "What colour?"})
    key = embedding_of(None, "What colour?")
    await store_vector(sessions, worker.description, key=key)
    await http.post("/retrieve", json={"text": "What colour?"})
    await http.post("/steer/generate", json={"prompt": "What colour?", "vector": "auto"})
    await http.post("/steer/generate", json={"prompt": "How late is it?", "vector": "auto"})
    shown = await _shown(http)
    found = {name: value for name, value in shown.items() if "retrievals_total" in name}
    assert found == {
        'vlibrary_retrievals_total{outcome="no-vectors"}': 1,
        'vlibrary_retrievals_total{outcome="found"}': 2,
        'vlibrary_retrievals_total{outcome="below-threshold"}': 1,
    }


async def test_jobs_are_shown_by_state(http: httpx.AsyncClient) -> None:
    shown = await _shown(http)
    assert shown['vlibrary_training_jobs{state="queued"}'] == 0
    assert shown['vlibrary_training_jobs{state="failed"}'] == 0


async def test_requests_of_the_workers_are_shown(
    http: httpx.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.rpc.pool.HEALTH_AGE_SECONDS", 0.0)
    worker.running = 3
    shown = await _shown(http)
    assert shown['vlibrary_num_requests_running{backbone="fake-a"}'] == 3
    assert shown['vlibrary_num_requests_waiting{backbone="fake-a"}'] == 0
    # Metrics are read most when something is wrong.
    worker.is_down = True
    assert "num_requests" not in (await http.get("/metrics")).text
