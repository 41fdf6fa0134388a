"""What the api shows at /metrics."""

import httpx
import pytest

from app.api.dependencies import Services
from app.api.http.admission import Admission
from app.api.http.metrics import ApiMetrics
from app.library.search.verdicts import AbstainReason, RetrievalResult
from tests.fakes.exposition import parse_metrics

NO_VECTORS: AbstainReason = "no-vectors"

pytestmark = pytest.mark.anyio


async def _text(http: httpx.AsyncClient) -> str:
    response = await http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return response.text


async def _shown(http: httpx.AsyncClient) -> dict[str, float]:
    return parse_metrics(await _text(http))


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
    full = [Admission(max_requests=0, max_bytes=0) for _ in range(2)]
    metrics = ApiMetrics({"a": full[0], "b": full[1]})
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
