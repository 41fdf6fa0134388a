"""The route of all metrics: the api's own, and those of the workers with their name as a label."""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import SQLAlchemyError

from app.api.dependencies import Services, ServicesOf
from app.api.http.problems import problems
from app.core.logs import get_logger
from app.core.metrics import MEDIA_TYPE, expose
from app.library.jobs import count_jobs

DATABASE_TIMEOUT_SECONDS: Final = 1.0
WORKER_LABEL: Final = "worker"
UP_NAME: Final = "vlibrary_worker_up"
OUR_NAME: Final = re.compile(r"(?:vlibrary|process|python)_[a-zA-Z0-9_]+")

log = get_logger(__name__)

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse, responses=problems())
async def metrics(services: ServicesOf) -> Response:
    """Shows the metrics of the api and of every worker that answers, for Prometheus."""
    texts, jobs = await asyncio.gather(services.workers.metrics(), _jobs(services))
    # Read here, where the values that it mirrors are changed.
    own = [*services.metrics.registry.collect(), *jobs]
    shown = await asyncio.to_thread(_shown, own, texts)
    return Response(shown, media_type=MEDIA_TYPE)


def _shown(own: Iterable[Metric], texts: Mapping[str, str | None]) -> bytes:
    workers = {_name_of(url): _families(text) for url, text in texts.items()}
    return expose(merge([*own, _up(workers)], workers))


def merge(own: Iterable[Metric], workers: Mapping[str, Iterable[Metric]]) -> Iterable[Metric]:
    """All families, each once; samples of a worker have a label with its name.

    A family that a worker shows as another type than it was seen as before is left out there.
    """
    merged = {family.name: family for family in own}
    for name, families in workers.items():
        for family in families:
            empty = Metric(family.name, family.documentation, family.type)
            known = merged.setdefault(family.name, empty)
            if known.type == family.type:
                known.samples += [
                    sample._replace(labels={**sample.labels, WORKER_LABEL: name})
                    for sample in family.samples
                ]
    return merged.values()


def _families(text: str | None) -> tuple[Metric, ...]:
    """The families of a worker's text that are shown; none when it is missing or malformed."""
    if text is None:
        return ()
    try:
        families = tuple(_taken(text))
        # What can be parsed cannot always be written, such as a number beyond all floats. And what
        # was written must be unambiguous.
        tuple(text_string_to_metric_families(expose(families).decode()))
    # Neither direction keeps to ValueError: there are IndexError and OverflowError as well, and
    # one worker's text must not take away the metrics of everything else.
    except Exception as error:  # noqa: BLE001
        log.warning("metrics of a worker cannot be read", reason=type(error).__name__)
        return ()
    return families


def _taken(text: str) -> Iterator[Metric]:
    """Families with our names and without times, which are for the reader of ours to set."""
    for family in text_string_to_metric_families(text):
        if OUR_NAME.fullmatch(family.name) and family.name != UP_NAME:
            family.samples = [sample._replace(timestamp=None) for sample in family.samples]
            yield family


def _name_of(url: str) -> str:
    """The address without what may be secret; the path tells workers behind one address apart."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path


def _up(workers: Mapping[str, tuple[Metric, ...]]) -> Metric:
    family = GaugeMetricFamily(
        UP_NAME, "Whether a worker showed its metrics", labels=[WORKER_LABEL]
    )
    for name, families in workers.items():
        family.add_metric([name], 1.0 if families else 0.0)
    return family


async def _jobs(services: Services) -> tuple[Metric, ...]:
    """The training jobs by state; nothing while the database does not answer."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_SECONDS):
            async with services.sessions.begin() as session:
                counts = await count_jobs(session)
    except (SQLAlchemyError, OSError) as error:
        log.warning("jobs cannot be counted", reason=type(error).__name__)
        return ()
    family = GaugeMetricFamily("vlibrary_training_jobs", "Training jobs by state", labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return (family,)
