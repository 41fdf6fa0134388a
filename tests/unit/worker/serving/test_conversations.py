"""Conversations and lengths, from the request to the answer of a worker."""

import pytest

from app.core.errors import ContextOverflowError, InvalidInputError
from app.method.backbone.loading import Backbone
from tests.fakes.answers import answer_of
from tests.fakes.servers.serving import DATASET, Parts, png, request_of

pytestmark = pytest.mark.anyio

CONTEXT = 1024


def turns(*said: tuple[str, list[str | None]]) -> list[dict[str, object]]:
    return [{"role": role, "parts": parts} for role, parts in said]


async def test_one_turn_is_the_question(parts: Parts) -> None:
    asked = await answer_of(parts.serving, request_of(images=[png()]))
    said = await answer_of(
        parts.serving, request_of(images=[png()], turns=turns(("user", [None, "what color?"])))
    )
    assert (said.text, said.token_ids, said.usage) == (asked.text, asked.token_ids, asked.usage)


async def test_pictures_and_their_places_match(parts: Parts) -> None:
    with pytest.raises(InvalidInputError, match="wanted 2, found 1"):
        await answer_of(
            parts.serving,
            request_of(images=[png()], turns=turns(("user", [None, "or", None, "?"]))),
        )


async def test_the_longest_answer_is_what_there_is_room_for(
    backbone: Backbone, parts: Parts
) -> None:
    assert backbone.description.max_position_embeddings == CONTEXT
    long = "what " * 500
    plain = await answer_of(parts.serving, request_of(prompt=long, max_tokens=1))
    room = CONTEXT - plain.usage.prompt_tokens
    assert room < 900
    fitted = await answer_of(
        parts.serving, request_of(prompt=long, max_tokens=5000, fits_context=True, stop=["what"])
    )
    assert fitted.max_tokens == room
    with pytest.raises(ContextOverflowError) as caught:
        await answer_of(parts.serving, request_of(prompt=long, max_tokens=room + 1))
    assert caught.value.details == {
        "context": CONTEXT,
        "prompt": plain.usage.prompt_tokens,
        "asked": room + 1,
        "pictures": 0,
    }
    short = await answer_of(parts.serving, request_of(max_tokens=5000, fits_context=True))
    assert short.max_tokens == 900


async def test_too_many_shots_are_told_how_many_fit(parts: Parts) -> None:
    asked = {"prompt": "what " * 900, "images": [png()], "max_tokens": 8}
    shown = {**DATASET, "shots": 6}
    with pytest.raises(
        ContextOverflowError, match=r"\(49 of them for its pictures\) .* shots"
    ) as caught:
        await answer_of(parts.serving, request_of(**asked, demonstrations=shown))
    fits = caught.value.details["shots_that_fit"]
    assert isinstance(fits, int)
    assert 0 < fits < 6
    assert caught.value.details["pictures"] == 7 * 7
    answer = await answer_of(
        parts.serving, request_of(**asked, demonstrations={**shown, "shots": fits})
    )
    assert answer.usage.prompt_tokens <= CONTEXT - 8
    with pytest.raises(ContextOverflowError):
        await answer_of(
            parts.serving, request_of(**asked, demonstrations={**shown, "shots": fits + 1})
        )


async def test_a_long_conversation_is_told_how_many_turns_fit(parts: Parts) -> None:
    said: list[tuple[str, list[str | None]]] = [
        ("user", ["what color? " * 80]),
        ("assistant", ["red"]),
    ] * 5
    whole = turns(("system", ["be brief"]), *said, ("user", ["and now?"]))
    told = r"found \d+ of the prompt and \d+ asked for; \d of 11 turns would fit"
    with pytest.raises(ContextOverflowError, match=told) as caught:
        await answer_of(parts.serving, request_of(prompt="and now?", turns=whole))
    fits = caught.value.details["turns_that_fit"]
    assert isinstance(fits, int)
    await answer_of(
        parts.serving, request_of(prompt="and now?", turns=[whole[0], *whole[len(whole) - fits :]])
    )
