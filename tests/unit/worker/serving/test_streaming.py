"""Answers that are shown as they grow, from the engine to the api's client."""

from collections.abc import AsyncIterator

import pytest

from app.core.errors import DeadlineExceededError, InvalidImageError, InvalidInputError
from app.method.backbone.loading import Backbone
from app.rpc.generation import GenerateDelta, GenerateResponse
from app.rpc.messages import GenerateRequest
from tests.fakes.answers import answer_of
from tests.fakes.servers.serving import ENDLESS, Parts, over_http, request_of
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio


async def _exhaust(parts: AsyncIterator[object]) -> None:
    async for _ in parts:
        pass


async def _streamed(parts: Parts, request: GenerateRequest) -> list[GenerateDelta]:
    """The deltas of an answer, which are compared with the answer at their end."""
    request = request.model_copy(update={"stream": True})
    *deltas, answer = [part async for part in parts.serving.generate(request)]
    assert isinstance(answer, GenerateResponse)
    shown = [delta for delta in deltas if isinstance(delta, GenerateDelta)]
    assert len(shown) == len(deltas) > 1
    assert "".join(delta.text for delta in shown) == answer.text
    assert sum((delta.token_ids for delta in shown), ()) == answer.token_ids
    if request.logprobs is not None:
        assert sum((delta.logprobs or () for delta in shown), ()) == answer.logprobs
    return shown


async def test_a_streamed_answer_is_the_whole_answer(parts: Parts) -> None:
    request = request_of(vectors=[parts.use(0, 2.0)], max_tokens=9, logprobs=2, baseline=True)
    deltas = await _streamed(parts, request)
    whole = await answer_of(parts.serving, request.model_copy(update={"request_id": "other"}))
    assert sum((delta.token_ids for delta in deltas), ()) == whole.token_ids
    assert whole.logprobs is not None
    assert [one.token_id for one in whole.logprobs] == list(whole.token_ids)
    # Greedy answers take the likeliest token, which is the first of those listed.
    assert all(one.top[0].token_id == one.token_id and len(one.top) == 2 for one in whole.logprobs)
    await _streamed(parts, request_of(stop=["e"], max_tokens=20))


@pytest.mark.parametrize("logprobs", [None, 1])
async def test_a_continued_text_keeps_the_space_that_it_begins_with(
    parts: Parts, backbone: Backbone, *, logprobs: int | None
) -> None:
    texts = []
    for seed in range(6):
        request = request_of(
            is_raw=True, seed=seed, temperature=2.0, max_tokens=6, logprobs=logprobs, baseline=True
        )
        answer = await answer_of(parts.serving, request)
        wanted = backbone.tokenizer.decode(list(answer.token_ids), skip_special_tokens=True)
        assert answer.baseline is not None
        assert answer.text == answer.baseline.text == wanted
        await _streamed(parts, request)
        texts.append(answer.text)
    assert any(text.startswith(" ") for text in texts)


async def test_a_form_holds_from_the_first_character_on_of_a_continued_text(parts: Parts) -> None:
    form = {"choice": ["red", "blue"]}
    for seed in range(4):
        request = request_of(is_raw=True, seed=seed, temperature=2.0, structured_outputs=form)
        assert (await answer_of(parts.serving, request)).text in form["choice"]


async def test_a_stream_that_fails_says_so_in_its_course(parts: Parts) -> None:
    stream = parts.serving.generate(request_of(**ENDLESS, stream=True))
    assert isinstance(await anext(stream), GenerateDelta)
    for sequence in parts.engine._sequences.values():
        sequence.error = DeadlineExceededError("late")
    with pytest.raises(DeadlineExceededError):
        await _exhaust(stream)
    with pytest.raises(InvalidInputError):
        await anext(parts.serving.generate(request_of(max_tokens=901, stream=True)))
    await until(lambda: parts.device.num_running == 0)


async def test_closing_a_stream_frees_its_row_within_one_step(parts: Parts) -> None:
    stream = parts.serving.generate(request_of(**ENDLESS, stream=True))
    await anext(stream)
    assert parts.engine.num_running == 1
    await stream.aclose()
    steps = parts.engine.num_steps
    await until(lambda: parts.engine.num_running == 0)
    assert parts.engine.num_steps <= steps + 1
    assert parts.serving.num_requests == 0


async def test_streams_go_over_http(parts: Parts, backbone: Backbone) -> None:
    client, _ = over_http(backbone, parts)
    async with client:
        request = request_of(vectors=[parts.use(1)], max_tokens=7, stream=True)
        *deltas, answer = [part async for part in client.generate(request)]
        assert isinstance(answer, GenerateResponse)
        assert "".join(part.text for part in deltas) == answer.text
        assert answer.receipt.sites_hit == answer.receipt.sites_expected > 0
        with pytest.raises(InvalidImageError):
            await anext(client.generate(request_of(images=[b"no image"])))
        with pytest.raises(DeadlineExceededError):
            await _exhaust(
                client.generate(request_of(**ENDLESS, deadline_seconds=0.3, stream=True))
            )
