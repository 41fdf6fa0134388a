"""The prompts of episodes: written and their pictures decoded while others use the backbone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Final

import torch

from app.core.pictures import Picture
from app.method.backbone.batching import MAX_ROWS, prompt_batches
from app.method.backbone.context import require_context
from app.method.backbone.examples import Episode
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import (
    EncodedBatch,
    PromptText,
    answer_token_ids,
    build_prompt,
)
from app.method.steps import OffDevice
from app.method.training.progress import Reporter, Steps

# The tokenizer belongs to the backbone's thread, so texts are counted a few at a time.
_COUNTED_TOGETHER: Final = 64


def episode_prompt(backbone: Backbone, episode: Episode, instruction: str | None) -> PromptText:
    """The prompt of an episode, open for the answer; any thread may write it."""
    return build_prompt(
        backbone,
        episode.query.question,
        episode.query.pictures,
        demonstrations=episode.context,
        instruction=instruction,
    )


def write_prompts(
    features: FeatureCache, episodes: Sequence[Episode], instruction: str | None
) -> Steps[tuple[list[PromptText], list[int]]]:
    """The prompts of episodes, open for the answer, and how many tokens each will have."""
    prompts: list[PromptText] = yield OffDevice(
        lambda: [episode_prompt(features.backbone, episode, instruction) for episode in episodes]
    )
    lengths: list[int] = []
    for start in range(0, len(prompts), _COUNTED_TOGETHER):
        some = prompts[start : start + _COUNTED_TOGETHER]
        yield from _decode(features.pixels_to_count(some), features=features)
        lengths += features.count_tokens(some)
        yield None
    return prompts, lengths


def prepare_pictures(prompts: Sequence[PromptText], *, features: FeatureCache) -> Steps[None]:
    """Makes ready what encoding these prompts needs of their pictures.

    Raises:
        InvalidInputError: The processor refuses a picture.
    """
    pictures = [picture for prompt in prompts for picture in prompt.images]
    if features.uses_cached_features(prompts):
        for batch in features.missing(pictures):
            yield from _prepare_batch(batch, features=features)
    yield from _decode(features.pixels_to_encode(prompts), features=features)


def _prepare_batch(batch: Sequence[Picture], *, features: FeatureCache) -> Steps[None]:
    """Has the vision features of a few pictures computed, which are decoded elsewhere before."""
    yield from _decode(batch, features=features)
    features.prepare(batch)
    yield None


def prepare_all(
    pictures: Sequence[Picture],
    *,
    features: FeatureCache,
    reporter: Reporter,
    num_units: int | None = None,
) -> Steps[None]:
    """Has the vision features of all pictures computed that are not known, as a phase of its own.

    The phase has `num_units` units, or else as many as there is to compute.

    Raises:
        JobCancelledError: The reporter was asked to stop.
    """
    batches = features.missing(pictures)
    reporter.begin("features", sum(map(len, batches)) if num_units is None else num_units)
    for batch in batches:
        yield from _prepare_batch(batch, features=features)
        yield from reporter.advance(len(batch))


def run_batches(
    features: FeatureCache,
    episodes: Sequence[Episode],
    run: Callable[[Sequence[int], EncodedBatch], object],
    *,
    token_budget: int,
    max_rows: int = MAX_ROWS,
    with_answers: bool = True,
    instruction: str | None = None,
    reporter: Reporter | None = None,
) -> Steps[None]:
    """Hands the episodes over, encoded in batches that fit the budget, the longest first.

    `run` is called, without gradients, with the places of a batch's rows among the episodes and the
    batch; nothing is bound to the backbone when it returns. A batch has at most `token_budget`
    tokens with its padding; a longer prompt goes alone. Every prompt begins with the instruction,
    the backbone's own when None. The reporter is told of every batch.

    Yields:
        Work for another thread, and progress, or None, after every batch.

    Raises:
        ContextOverflowError: A prompt is too long; the error tells how many shots would fit.
        JobCancelledError: The reporter was asked to stop.
    """
    prompts, lengths = yield from write_prompts(features, episodes, instruction)
    if episodes:
        backbone = features.backbone
        length, prompt, episode = max(
            zip(lengths, prompts, episodes, strict=True), key=itemgetter(0)
        )
        answer = answer_token_ids(backbone, episode.query.answer) if with_answers else ()
        if episode.context and not backbone.fits_context(length + len(answer)):
            require_context(
                features,
                prompt,
                build=lambda count: episode_prompt(
                    backbone, replace(episode, context=episode.context[:count]), instruction
                ),
                most=len(episode.context),
                unit="shots",
                num_new_tokens=len(answer),
            )
    for places in prompt_batches(
        prompts, lengths, features=features, token_budget=token_budget, max_rows=max_rows
    ):
        some = [prompts[place] for place in places]
        yield from prepare_pictures(some, features=features)
        answers = [episodes[place].query.answer for place in places] if with_answers else None
        with torch.no_grad():
            run(places, features.encode(some, answers=answers))
        if reporter is None:
            yield None
        else:
            yield from reporter.advance(len(places))


def _decode(pictures: Sequence[Picture], *, features: FeatureCache) -> Steps[None]:
    if pictures:
        yield OffDevice(partial(features.pixels.prefetch, pictures))
