"""A worker whose backbone has its layers on several devices, which are stand-ins."""

from contextlib import ExitStack

import pytest

from app.library.storage import ObjectStore
from app.method.backbone.loading import Backbone
from app.rpc.messages import EmbedRequest
from tests.fakes.answers import answer_of
from tests.fakes.models.devices import stand_ins
from tests.fakes.models.spread import spread_backbone
from tests.fakes.servers.serving import DATASET, Parts, png, request_of, running_parts

pytestmark = pytest.mark.anyio


async def answers(parts: Parts) -> list[object]:
    """Steered by two vectors, shown demonstrations, plain, with scores, and a row to search by."""
    steered = request_of(
        images=[png()], vectors=[parts.use(0, 1.5), parts.use(1, -0.5)], baseline=True
    )
    shown = request_of(images=[png()], demonstrations={**DATASET, "shots": 2, "seed": 1})
    scored = request_of(temperature=0.7, seed=3, repetition_penalty=1.2, logprobs=2)
    found = [await answer_of(parts.serving, one) for one in (steered, shown, scored)]
    rows = await parts.serving.embed(EmbedRequest(images=(png(),), questions=("what color?",)))
    return [
        *((one.token_ids, one.logprobs, one.baseline, one.receipt.sites_hit) for one in found),
        rows.embeddings,
    ]


async def test_requests_are_answered_as_on_one_device(
    backbone: Backbone, parts: Parts, objects: ObjectStore
) -> None:
    wanted = await answers(parts)
    with ExitStack() as devices:

        def load() -> Backbone:
            # They are there for the thread that computes.
            devices.enter_context(stand_ins())
            return spread_backbone(backbone)

        async with running_parts(backbone, objects, load=load) as spread:
            assert await answers(spread) == wanted
            await spread.device.call(devices.close)
