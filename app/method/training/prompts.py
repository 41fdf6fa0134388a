"""The prompts of a training: written and their pictures decoded while others use the backbone."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from app.core.pictures import Picture
from app.method.backbone.examples import Lesson
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, build_prompt
from app.method.steps import OffDevice
from app.method.training.progress import Steps

# The tokenizer belongs to the backbone's thread, so texts are counted a few at a time.
_COUNTED_TOGETHER: Final = 64


def lesson_prompt(backbone: Backbone, lesson: Lesson, instruction: str | None) -> PromptText:
    """The prompt of a lesson, open for the answer; any thread may write it."""
    return build_prompt(
        backbone,
        lesson.query.question,
        lesson.query.pictures,
        demonstrations=lesson.context,
        instruction=instruction,
    )


def write_prompts(
    backbone: Backbone,
    lessons: Sequence[Lesson],
    instruction: str | None,
    *,
    features: FeatureCache,
) -> Steps[tuple[list[PromptText], list[int]]]:
    """The prompts of lessons, open for the answer, and how many tokens each will have."""
    prompts: list[PromptText] = yield OffDevice(
        lambda: [lesson_prompt(backbone, lesson, instruction) for lesson in lessons]
    )
    lengths: list[int] = []
    for start in range(0, len(prompts), _COUNTED_TOGETHER):
        some = prompts[start : start + _COUNTED_TOGETHER]
        yield from _decode(features.pixels_to_count(some), features=features)
        lengths += features.count_tokens(some)
        yield None
    return prompts, lengths


def see(prompts: Sequence[PromptText], *, features: FeatureCache) -> Steps[None]:
    """Makes ready what encoding these prompts needs of their pictures.

    Raises:
        InvalidInputError: The processor refuses a picture.
    """
    pictures = [picture for prompt in prompts for picture in prompt.images]
    if features.feeds(prompts):
        for batch in features.missing(pictures):
            yield from see_batch(batch, features=features)
    yield from _decode(features.pixels_to_encode(prompts), features=features)


def see_batch(batch: Sequence[Picture], *, features: FeatureCache) -> Steps[None]:
    """Has the vision features of a few pictures computed, which are decoded elsewhere before."""
    yield from _decode(batch, features=features)
    features.prepare(batch)
    yield None


def _decode(pictures: Sequence[Picture], *, features: FeatureCache) -> Steps[None]:
    if pictures:
        yield OffDevice(partial(features.pixels.keep_all, pictures))
