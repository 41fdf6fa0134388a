"""What the api shows at /metrics, of itself and of its workers."""

import asyncio
import gzip
from collections.abc import Mapping
from typing import TypeAlias

import httpx
import pytest
from prometheus_client.metrics_core import GaugeMetricFamily

from app.api.app import create_api
from app.api.dependencies import Services
from app.api.http.admission import Admission
from app.api.http.metrics import Metrics
from app.api.routes.scraping import _families, merge
from app.core.settings import Settings
from app.library.database import make_engine
from app.library.retrieval import RetrievalResult
from app.library.verdicts import AbstainReason
from app.main import make_services
from app.rpc.client import MAX_METRICS_BYTES, WorkerClient
from tests.fakes.exposition import parse_metrics

NOWHERE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"

NO_VECTORS: AbstainReason = "no-vectors"

pytestmark = pytest.mark.anyio

_Answer: TypeAlias = str | int | Exception | httpx.Response | None

WORKER_TEXT = """# HELP vlibrary_failed_total F
# TYPE vlibrary_failed_total counter
vlibrary_failed_total{code="busy"} 3
# HELP process_open_fds O
# TYPE process_open_fds gauge
process_open_fds 7
"""


class _Workers(httpx.AsyncBaseTransport):
    """Hosts that answer with a text, an error, a status, or not at all."""

    def __init__(self, answers: Mapping[str, _Answer]) -> None:
        self._answers = answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._answers[request.url.host]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.sleep(60)
        if isinstance(answer, int):
            return httpx.Response(answer)
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, text=answer)


async def _text(http: httpx.AsyncClient) -> str:
    response = await http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return response.text


async def _shown(http: httpx.AsyncClient) -> dict[str, float]:
    return parse_metrics(await _text(http))


async def _shown_with(settings: Settings, answers: Mapping[str, _Answer]) -> dict[str, float]:
    urls = [f"http://user:secret@{name}:8001" for name in answers]
    return parse_metrics(await _text_at(settings, urls, answers))


async def _text_at(settings: Settings, urls: list[str], answers: Mapping[str, _Answer]) -> str:
    async with WorkerClient(urls, transport=_Workers(answers)) as workers:
        services = make_services(settings, engine=make_engine(NOWHERE), workers=workers)
        transport = httpx.ASGITransport(app=create_api(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await _text(http)


async def test_requests_are_counted_by_template_method_and_status(http: httpx.AsyncClient) -> None:
    await http.get("/livez")
    await http.get("/vectors/a-name-that-someone-typed")
    await http.get("/no/such/path")
    await http.request("BREW", "/livez")
    shown = await _shown(http)
    name = "vlibrary_http_requests_total"
    assert shown[f'{name}{{method="GET",route="/livez",status="200"}}'] == 1
    assert shown[f'{name}{{method="GET",route="/vectors/{{ref}}",status="503"}}'] == 1
    assert shown[f'{name}{{method="GET",route="-",status="404"}}'] == 1
    assert shown[f'{name}{{method="OTHER",route="/livez",status="405"}}'] == 1
    assert shown['vlibrary_http_request_seconds_count{route="/livez"}'] == 2
    assert shown["vlibrary_http_requests_in_flight"] == 1
    assert not [sample for sample in shown if "typed" in sample or "BREW" in sample]


async def test_places_and_rejections_are_shown(http: httpx.AsyncClient, services: Services) -> None:
    with services.admission.place(), services.streams.place():
        shown = await _shown(http)
    assert shown['vlibrary_admission_in_flight{kind="answers"}'] == 1
    assert shown['vlibrary_admission_in_flight{kind="uploads"}'] == 0
    metrics = Metrics()
    full = [Admission(max_requests=0, max_bytes=0) for _ in range(2)]
    metrics.mirror_places({"a": full[0], "b": full[1]})
    for admission in full:
        with pytest.raises(Exception, match="not admitted"), admission.place():
            pass
    families = {family.name: family for family in metrics.registry.collect()}
    (sample,) = families["vlibrary_admission_rejections"].samples
    assert (sample.labels, sample.value) == ({"reason": "full"}, 2)


async def test_retrievals_are_counted_by_what_came_out(
    http: httpx.AsyncClient, services: Services
) -> None:
    for reason in (None, NO_VECTORS, NO_VECTORS):
        result = RetrievalResult(matches=(), abstained=reason is not None, reason=reason, epoch=0)
        services.metrics.note_retrieval(result)
    shown = await _shown(http)
    assert shown['vlibrary_retrievals_total{outcome="found"}'] == 1
    assert shown['vlibrary_retrievals_total{outcome="no-vectors"}'] == 2


async def test_workers_are_shown_beside_the_api_under_their_name(settings: Settings) -> None:
    shown = await _shown_with(settings, {"one": WORKER_TEXT, "two": WORKER_TEXT})
    for worker in ("one:8001", "two:8001"):
        assert shown[f'vlibrary_worker_up{{worker="{worker}"}}'] == 1
        assert shown[f'vlibrary_failed_total{{code="busy",worker="{worker}"}}'] == 3
        assert shown[f'process_open_fds{{worker="{worker}"}}'] == 7
    assert shown["process_open_fds"] > 0
    assert not [sample for sample in shown if "secret" in sample]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        500,
        httpx.ConnectError("refused"),
        "",
        "vlibrary_failed_total{ 3",
        "a{b='\n",
        "a 1 inf",
        f"vlibrary_size {'9' * 400}",
        f"vlibrary_size 1 {'9' * 400}",
        "}P{-L+=, =n}iE1T}_uY_{",
        'vlibrary_size{"a.b"="1",a_b="2"} 3',
        "vlibrary_size 1\n" + "#" * MAX_METRICS_BYTES,
        httpx.Response(
            200,
            content=gzip.compress(WORKER_TEXT.encode()),
            headers={"content-encoding": "gzip"},
        ),
        "vlibrary_worker_up 1\n",
        '{"vlibrary_worker.up"} 1\n',
        "other_size 1\n",
    ],
    ids=[
        *("silence", "failure", "refusal", "nothing", "malformed", "cut off", "endless time"),
        *("huge number", "huge time", "noise", "one label twice", "too long", "compressed"),
        *("ours alone", "ours in disguise", "foreign"),
    ],
)
async def test_a_worker_that_shows_nothing_is_down_and_costs_nothing_else(
    settings: Settings, answer: _Answer
) -> None:
    shown = await _shown_with(settings, {"one": WORKER_TEXT, "two": answer})
    assert shown['vlibrary_worker_up{worker="one:8001"}'] == 1
    assert shown['vlibrary_worker_up{worker="two:8001"}'] == 0
    assert not [name for name in shown if "two" in name and not name.startswith("vlibrary_worker")]
    assert {name for name in shown if "worker_up" in name} == {
        f'vlibrary_worker_up{{worker="{worker}:8001"}}' for worker in ("one", "two")
    }


@pytest.mark.parametrize("time", ["inf", "nan", "1700000000000", "-1"])
async def test_times_of_a_worker_are_left_out(settings: Settings, time: str) -> None:
    text = "# HELP vlibrary_size S\n# TYPE vlibrary_size gauge\nvlibrary_size 3 " + time
    shown = await _text_at(settings, ["http://one:8001"], {"one": text})
    assert 'vlibrary_size{worker="one:8001"} 3.0\n' in shown


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "utf-8"])
async def test_no_encoding_makes_a_worker_unwritable(settings: Settings, charset: str) -> None:
    content = WORKER_TEXT.replace("busy", r"\ud800+2AA-").encode() + b"# \xff\n"
    headers = {"content-type": f"text/plain; charset={charset}"}
    answer = httpx.Response(200, content=content, headers=headers)
    shown = await _shown_with(settings, {"one": answer})
    assert shown['vlibrary_worker_up{worker="one:8001"}'] == 1


def test_half_a_character_is_not_taken_from_a_worker() -> None:
    assert _families('vlibrary_size{a="\ud800"} 1') == ()
    assert len(_families('vlibrary_size{a="\U0001f600"} 1')) == 1


async def test_workers_behind_one_address_are_told_apart_by_path(settings: Settings) -> None:
    urls = ["http://one:8001/a/", "http://one:8001/b"]
    shown = parse_metrics(await _text_at(settings, urls, {"one": WORKER_TEXT}))
    for path in ("a", "b"):
        assert shown[f'process_open_fds{{worker="one:8001/{path}"}}'] == 7


def test_a_family_of_another_type_is_left_out() -> None:
    own = GaugeMetricFamily("size", "S", value=1)
    other = GaugeMetricFamily("size", "S", value=2)
    other.type = "counter"
    (found,) = merge([own], {"one": [other]})
    assert [sample.value for sample in found.samples] == [1]


async def test_a_worker_without_metrics_is_shown_as_down(http: httpx.AsyncClient) -> None:
    # The fake has none, as a worker of an older version.
    assert (await _shown(http))['vlibrary_worker_up{worker="worker"}'] == 0
