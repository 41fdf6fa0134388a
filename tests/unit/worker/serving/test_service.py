"""Requests through vector cache, pools, device and engine, and over the worker's HTTP."""

import asyncio

import numpy as np
import pytest
from PIL import Image

from app.core.errors import (
    InvalidInputError,
    NotFoundError,
)
from app.core.pictures import Picture
from app.library.storage import ObjectStore
from app.method.backbone.embedding import embed
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt
from app.method.keys.encoder import KeyEncoder, space_id
from app.rpc.messages import DemonstrationsUse, EmbedRequest, GenerateRequest
from app.worker.serving.demonstrations import DatasetPools
from tests.fakes.answers import answer_of
from tests.fakes.models.backbones import tiny_examples
from tests.fakes.models.generation import generate
from tests.fakes.servers.serving import (
    DATASET,
    Parts,
    png,
    request_of,
    running_parts,
)

pytestmark = pytest.mark.anyio


async def test_an_unsteered_answer_is_that_of_the_backbone(
    backbone: Backbone, parts: Parts
) -> None:
    answer = await answer_of(parts.serving, request_of(images=[png()]))
    image = Picture.of(png())
    alone = generate(backbone, [build_prompt(backbone, "what color?", image)], max_new_tokens=8)[0]
    assert (answer.text, answer.token_ids) == (alone.text, alone.token_ids)
    assert answer.usage.prompt_tokens == alone.num_prompt_tokens
    assert (answer.receipt.sites_hit, answer.receipt.sites_expected) == (0, 0)
    assert answer.baseline is None
    assert answer.timings.total_ms >= answer.timings.decode_ms >= 0


async def test_vectors_steer_and_the_receipt_says_so(backbone: Backbone, parts: Parts) -> None:
    request = request_of(
        images=[png()], vectors=[parts.use(0, 1.5), parts.use(1, -0.5)], baseline=True
    )
    answer = await answer_of(parts.serving, request)
    prompt = build_prompt(backbone, "what color?", Picture.of(png()))
    shift = (
        parts.files.shift(parts.files.digests[0]) * 1.5
        - parts.files.shift(parts.files.digests[1]) * 0.5
    )
    steered = generate(backbone, [prompt], shifts=shift[None], max_new_tokens=8)[0]
    plain = generate(backbone, [prompt], max_new_tokens=8)[0]
    assert answer.token_ids == steered.token_ids
    assert answer.baseline is not None
    assert answer.baseline.token_ids == plain.token_ids
    assert [(one.sha256, one.strength) for one in answer.receipt.vectors] == [
        (parts.files.digests[0], 1.5),
        (parts.files.digests[1], -0.5),
    ]
    assert answer.receipt.sites_hit == answer.receipt.sites_expected == 2 * backbone.num_layers
    assert answer.receipt.kl_first_token is not None
    assert answer.receipt.kl_first_token > 0


async def test_strength_zero_and_no_vector_answer_like_the_baseline(parts: Parts) -> None:
    at_zero = await answer_of(parts.serving, request_of(vectors=[parts.use(0, 0.0)], baseline=True))
    without = await answer_of(parts.serving, request_of(baseline=True))
    for answer in (at_zero, without):
        assert answer.baseline is not None
        assert answer.token_ids == answer.baseline.token_ids
        assert answer.receipt.kl_first_token == pytest.approx(0.0, abs=1e-6)
    assert at_zero.receipt.sites_hit > 0


async def test_many_requests_at_once_do_not_mix(parts: Parts) -> None:
    requests = [
        request_of(
            prompt=f"what color is number {index}?",
            images=[png((index * 20, 10, 200))] * (index % 3),
            vectors=[parts.use(index % 2, index / 4)] if index % 4 else [],
            temperature=0.9 if index % 5 == 0 else 0.0,
            seed=index,
        )
        for index in range(12)
    ]
    together = await asyncio.gather(*(answer_of(parts.serving, one) for one in requests))
    for request, answer in zip(requests, together, strict=True):
        alone = await answer_of(parts.serving, request)
        assert answer.token_ids == alone.token_ids
        assert answer.receipt == alone.receipt


async def test_random_demonstrations_follow_their_seed(parts: Parts) -> None:
    async def chosen(seed: int) -> list[str]:
        use = request_of(demonstrations={**DATASET, "shots": 5, "seed": seed}).demonstrations
        assert use is not None
        return [one.id for one in await parts.pools.choose(use, question="which?", images=[])]

    assert await chosen(1) == await chosen(1)
    assert await chosen(1) != await chosen(2)


async def test_demonstrations_and_an_instruction_come_before_the_query(
    backbone: Backbone, parts: Parts
) -> None:
    use = request_of(demonstrations={**DATASET, "shots": 3, "seed": 5}).demonstrations
    assert use is not None
    examples = await parts.pools.choose(use, question="what color?", images=[])
    answer = await answer_of(
        parts.serving, request_of(demonstrations=use, instruction="Answer with one word.")
    )
    prompt = build_prompt(
        backbone,
        "what color?",
        (),
        demonstrations=examples,
        instruction="Answer with one word.",
    )
    alone = generate(backbone, [prompt], max_new_tokens=8)[0]
    assert answer.usage.prompt_tokens == alone.num_prompt_tokens
    assert answer.token_ids == alone.token_ids


async def test_nearest_demonstrations_are_the_most_similar_ones_nearest_last(
    backbone: Backbone, parts: Parts
) -> None:
    examples = tiny_examples(12)
    image = Picture.of(Image.new("RGB", (16, 16), (30, 200, 30)))
    use = GenerateRequest.model_validate(
        {
            "request_id": "r",
            "prompt": "p",
            "demonstrations": {**DATASET, "shots": 4, "selection": "nearest"},
        }
    ).demonstrations
    assert use is not None
    chosen = await parts.pools.choose(use, question="which colour is it?", images=[image])
    rows = embed(
        FeatureCache(backbone), [one.image for one in examples], [one.question for one in examples]
    )
    query = embed(FeatureCache(backbone), [image], ["which colour is it?"])[0]
    order = np.argsort(rows @ query)[-4:]
    assert [one.question for one in chosen] == [examples[index].question for index in order]
    assert [one.answer for one in chosen] == [examples[index].answer for index in order]


async def test_balanced_demonstrations_have_as_many_answers_as_possible(parts: Parts) -> None:
    answers = {example.answer for example in tiny_examples(12)}
    shots = len(answers)
    use = request_of(
        demonstrations={**DATASET, "shots": shots, "selection": "balanced", "seed": 3}
    ).demonstrations
    assert use is not None
    chosen = await parts.pools.choose(use, question="which?", images=[])
    assert {one.answer for one in chosen} == answers
    again = await parts.pools.choose(use, question="which?", images=[])
    assert [one.id for one in again] == [one.id for one in chosen]


async def test_the_picture_that_is_asked_about_is_not_among_the_demonstrations(
    parts: Parts,
) -> None:
    first, third = tiny_examples(12)[0].pictures, tiny_examples(12)[2].pictures
    use = request_of(demonstrations={**DATASET, "shots": 10, "selection": "random"}).demonstrations
    assert use is not None
    chosen = await parts.pools.choose(use, question="which?", images=first)
    assert first[0].digest not in {one.image.digest for one in chosen if one.image is not None}
    with pytest.raises(InvalidInputError, match="wanted 10"):
        # Two of twelve show the picture, and two more that of the second query image.
        await parts.pools.choose(use, question="which?", images=[*first, *third])


async def test_datasets_take_turns_in_memory_and_a_missing_one_is_reported(
    backbone: Backbone, objects: ObjectStore, parts: Parts
) -> None:
    pools = DatasetPools(
        FeatureCache(backbone),
        device=parts.device,
        objects=objects,
        max_pools=1,
    )
    for key in ("datasets/colours.parquet", "datasets/other.parquet", "datasets/colours.parquet"):
        use = DemonstrationsUse.model_validate({**DATASET, "storage_key": key, "shots": 1})
        assert len(await pools.choose(use, question="which?", images=[])) == 1
        assert len(pools._pools) == 1
    missing = {**DATASET, "storage_key": "datasets/none.parquet", "shots": 1}
    with pytest.raises(NotFoundError):
        await answer_of(parts.serving, request_of(demonstrations=missing))


async def test_embeddings_are_those_of_the_method(backbone: Backbone, parts: Parts) -> None:
    request = EmbedRequest(images=(png(), None), questions=("what color?", "which?"))
    answer = await parts.serving.embed(request)
    image = Picture.of(png())
    keys = KeyEncoder(FeatureCache(backbone))
    wanted = keys.encode([image, None], ["what color?", "which?"])
    np.testing.assert_allclose(np.array(answer.embeddings), wanted, atol=1e-6)
    assert (answer.space, answer.dim) == (space_id(backbone), wanted.shape[1])


async def test_a_vector_acts_no_more_strongly_than_its_training_bore(
    backbone: Backbone, objects: ObjectStore
) -> None:
    async with running_parts(backbone, objects, highest_dose=1e3) as parts:
        dose = (await answer_of(parts.serving, request_of(vectors=[parts.use(0)]))).receipt.dose
        assert dose is not None
    async with running_parts(
        backbone, objects, highest_dose=1e3, metadata={"max_dose": f"{1.5 * dose:.6g}"}
    ) as parts:
        allowed = await answer_of(parts.serving, request_of(vectors=[parts.use(0, -1.5)]))
        assert allowed.receipt.dose == pytest.approx(1.5 * dose, rel=1e-3)
        # A sum may act more strongly than its parts, but no part than it bears.
        both = [parts.use(0, 1.4), parts.use(1, 0.01)]
        await answer_of(parts.serving, request_of(vectors=both))
        # The last is one file that is stored under two names.
        for wild in (
            [parts.use(0, 2.0)],
            [parts.use(0, -2.0)],
            [parts.use(0, 2.0), both[1]],
            [parts.use(0, 1.0), parts.use(0, 1.0)],
        ):
            with pytest.raises(InvalidInputError, match="the largest strength is"):
                await answer_of(parts.serving, request_of(vectors=wild))
