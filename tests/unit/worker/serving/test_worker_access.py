import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from app.core.errors import VLibraryError
from app.rpc.client import WorkerClient
from app.rpc.decoding import read_answer
from app.rpc.messages import EmbedResponse
from app.worker.serving.server import require_secret

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI(middleware=[Middleware(require_secret, secret="right")])  # noqa: S106 - a test's
    app.get("/health")(lambda: {"status": "ready"})
    app.get("/metrics")(lambda: "figures")
    app.post("/generate")(lambda: "an answer")
    return app


@pytest.mark.parametrize("shown", [None, "Bearer wrong", "right", "Basic right", "Bearer right "])
async def test_nobody_without_the_secret_is_answered(app: FastAPI, shown: str | None) -> None:
    headers = {} if shown is None else {"authorization": shown}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        assert (await http.post("/generate", headers=headers)).status_code == 401
        assert (await http.get("/metrics", headers=headers)).status_code == 401
        # Probes show nothing; an api that shows another secret hears of it before it sends anybody.
        is_probe = shown is None
        assert (await http.get("/health", headers=headers)).is_success == is_probe


async def test_the_api_shows_it(app: FastAPI) -> None:
    async with WorkerClient(
        ["http://worker"],
        secret="right",  # noqa: S106 - a test's
        transport=httpx.ASGITransport(app=app),
    ) as workers:
        response = await workers._http.post("http://worker/generate")
    assert (response.status_code, response.json()) == (200, "an answer")


async def test_a_worker_of_another_secret_is_not_ready(app: FastAPI) -> None:
    async with WorkerClient(
        ["http://worker"],
        secret="wrong",  # noqa: S106 - a test's
        transport=httpx.ASGITransport(app=app),
    ) as workers:
        with pytest.raises(VLibraryError, match=r"ready to serve; .*VLIBRARY_WORKER_SECRET must"):
            await workers.pool.serving()
        with pytest.raises(VLibraryError, match=r"ready to serve; .*VLIBRARY_WORKER_SECRET must"):
            await workers.pool.choose(None)


async def test_a_refused_api_says_what_to_set(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        response = await http.post("/generate")
    with pytest.raises(VLibraryError, match="VLIBRARY_WORKER_SECRET"):
        read_answer(response, EmbedResponse)
