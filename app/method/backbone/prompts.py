"""From questions, images and demonstrations to the tensors a backbone reads.

An answer is never part of the tokenised prompt: its ids are appended to the ids of a prompt that
ends with the generation prompt, so training sees exactly the sequence that generation would make.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor
from transformers import IdeficsProcessor, ProcessorMixin

from app.core.errors import ContextOverflowError, InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.chat import (
    Message,
    as_plain_text,
    encode_answer,
    image_token,
    model_message,
    render,
    user_message,
)
from app.method.backbone.checkpoint.models import first_line
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.backbone.padding import append_answers

_UNUSED_KEYS: Final = frozenset({"labels"})
# Families that read what is asked in both directions; their answers are of type 1, of which no
# token sees what comes after it.
_READ_BOTH_WAYS: Final = frozenset({"paligemma"})


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptText:
    """A conversation as the processor's text, ending where the model is to answer.

    Attributes:
        text: Rendered by the chat template, one placeholder an image.
        notes: What the template could not write as it was said.
    """

    text: str
    images: tuple[Picture, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedBatch:
    """Prompts as the backbone's inputs.

    Attributes:
        inputs: Keyword arguments of the model, on its device. Padded on the right when answers were
            given and on the left otherwise.
        num_prompt_tokens: Tokens of each prompt without padding and without the answer.
        predicts_answer: Positions whose logits predict an answer token: from the last prompt token
            (it predicts the first answer token) to the one before the end of the turn.
        answer_ids: Ids of each answer with the token that ends the turn; empty without answers.
    """

    inputs: dict[str, Any]
    num_prompt_tokens: tuple[int, ...]
    predicts_answer: Bool[Tensor, "rows tokens"]
    answer_ids: tuple[tuple[int, ...], ...]

    @property
    def targets(self) -> Int[Tensor, " answers"]:
        """All answer ids, row after row, in the order in which `predicts_answer` selects."""
        flat = [token_id for ids in self.answer_ids for token_id in ids]
        return torch.tensor(flat, dtype=torch.long, device=self.predicts_answer.device)


def build_prompt(
    backbone: Backbone,
    question: str,
    images: Picture | Sequence[Picture],
    *,
    demonstrations: Sequence[Example] = (),
    instruction: str | None = None,
) -> PromptText:
    """A prompt for one question, after as many solved examples as are given.

    Text of users and data sets cannot write control tokens or placeholders: it is broken up where
    it tries.

    Args:
        backbone: Whose chat template is used.
        question: What is asked.
        images: What it is asked about: one image, several, or an empty sequence.
        demonstrations: Solved examples, first to last; each becomes a turn of the user and one of
            the model.
        instruction: Said once at the very start.

    Raises:
        InvalidInputError: The question is empty.
    """
    if not question.strip():
        raise InvalidInputError("Nothing to answer: wanted a question, found an empty text")
    processor = backbone.processor
    pictures = [images] if isinstance(images, Picture) else list(images)
    messages = solved_messages(processor, demonstrations)
    messages.append(user_message(as_plain_text(processor, question), num_images=len(pictures)))
    if instruction:
        text = as_plain_text(processor, instruction)
        messages[0]["content"].insert(0, {"type": "text", "text": text})
    return PromptText(
        text=render(processor, messages, with_generation_prompt=True),
        images=(
            *(picture for example in demonstrations for picture in example.pictures),
            *pictures,
        ),
    )


def solved_messages(processor: ProcessorMixin, examples: Sequence[Example]) -> list[Message]:
    """A turn of the user and one of the model for each solved example."""
    messages = []
    for example in examples:
        question = as_plain_text(processor, example.question)
        messages += [
            user_message(question, num_images=len(example.pictures)),
            model_message(as_plain_text(processor, example.answer)),
        ]
    return messages


def answer_token_ids(backbone: Backbone, answer: str) -> tuple[int, ...]:
    """The ids the backbone has to write for this answer, with the token that ends its turn."""
    return tuple(encode_answer(backbone.processor, backbone.answer_format, answer))


def writes_bos(backbone: Backbone, text: str) -> bool:
    """Whether a rendered prompt starts with the token that the tokenizer would put there."""
    bos = backbone.tokenizer.bos_token
    return bool(bos) and text.startswith(str(bos))


def _interleaved(
    backbone: Backbone, prompt: PromptText, pixels: Callable[[Picture], Image.Image]
) -> list[str | Image.Image]:
    texts = prompt.text.split(image_token(backbone.processor))
    parts: list[str | Image.Image] = [texts[0]]
    for image, text in zip(prompt.images, texts[1:], strict=True):
        parts += [pixels(image), text]
    # An empty text between pictures would count as one that ends their row.
    return [part for part in parts if part != ""]


@contextmanager
def told_refusals() -> Iterator[None]:
    """What the processor refuses in the block is told in its own words.

    Raises:
        InvalidInputError: It cannot read what it was given.
    """
    try:
        yield
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise InvalidInputError(
            f"The processor cannot read these prompts or pictures: {first_line(error)}",
            details={"reason": type(error).__name__},
        ) from error


def process(
    backbone: Backbone,
    prompts: Sequence[PromptText],
    *,
    padding_side: Literal["left", "right"],
    add_special_tokens: bool | None = None,
    pixels: Callable[[Picture], Image.Image] = Picture.decoded,
) -> dict[str, Any]:
    """What the processor itself makes of the prompts, at least one.

    Shorter rows are filled up at `padding_side`. The tokenizer adds a start token where
    `add_special_tokens` says so; None adds it exactly when the template has not written one.

    Returns:
        Tensors on the backbone's device, pixels in its dtype.

    Raises:
        InvalidInputError: The processor refuses a picture or a prompt.
    """
    options: dict[str, Any] = {
        "padding": True,
        "padding_side": padding_side,
        "return_tensors": "pt",
    }
    with told_refusals():
        if isinstance(backbone.processor, IdeficsProcessor):
            # The first Idefics takes text and images in turn and writes start tokens by itself.
            features = backbone.processor(
                text=[_interleaved(backbone, prompt, pixels) for prompt in prompts], **options
            )
        else:
            if add_special_tokens is None:
                add_special_tokens = not writes_bos(backbone, prompts[0].text)
            images = [[pixels(picture) for picture in prompt.images] for prompt in prompts]
            features = backbone.processor(
                text=[prompt.text for prompt in prompts],
                images=images if any(images) else None,
                add_special_tokens=add_special_tokens,
                **options,
            )
    moved = features.to(device=backbone.device, dtype=backbone.dtype)
    return {key: value for key, value in moved.items() if key not in _UNUSED_KEYS}


def check_length(backbone: Backbone, num_tokens: int, *, num_new_tokens: int = 0) -> None:
    """Returns when a sequence fits the backbone's context window.

    Raises:
        ContextOverflowError: Together they are longer than the backbone was made for.
    """
    if backbone.fits_context(num_tokens + num_new_tokens):
        return
    limit = backbone.description.max_position_embeddings
    asked = f" and {num_new_tokens} asked for" if num_new_tokens else ""
    raise ContextOverflowError(
        f"The prompt is too long: wanted at most {limit} tokens of context, found {num_tokens} "
        f"of the prompt{asked}; fewer shots or turns, or shorter texts, would fit",
        details={"context": limit, "prompt": num_tokens, "asked": num_new_tokens},
    )


def finish_batch(
    backbone: Backbone, inputs: dict[str, Any], *, answers: Sequence[str] | None
) -> EncodedBatch:
    """Encoded prompts, with answers appended when there are some.

    The inputs are padded on the right where answers follow.

    Raises:
        ContextOverflowError: A row is longer than the backbone's context window.
    """
    mask: Int[Tensor, "rows tokens"] = inputs["attention_mask"]
    num_prompt_tokens = tuple(mask.sum(1).tolist())
    if answers is None:
        ids: tuple[tuple[int, ...], ...] = ()
        predicts = torch.zeros_like(mask, dtype=torch.bool)
    else:
        ids = tuple(answer_token_ids(backbone, answer) for answer in answers)
        pad = int(backbone.tokenizer.pad_token_id)
        kind = int(backbone.model.config.model_type in _READ_BOTH_WAYS)
        inputs, predicts = append_answers(inputs, ids, pad_token_id=pad, answer_type=kind)
    check_length(backbone, int(inputs["attention_mask"].shape[1]))
    return EncodedBatch(
        inputs=inputs, num_prompt_tokens=num_prompt_tokens, predicts_answer=predicts, answer_ids=ids
    )


def encode_prompts(
    backbone: Backbone,
    prompts: Sequence[PromptText],
    *,
    answers: Sequence[str] | None = None,
    pixels: Callable[[Picture], Image.Image] = Picture.decoded,
) -> EncodedBatch:
    """Prompts as the backbone's inputs, read from pixels.

    Args:
        backbone: Who reads them.
        prompts: At least one.
        answers: One text a prompt, appended and marked for supervision; None leaves the prompts
            open, padded on the left, for generation.
        pixels: Decodes a picture.

    Raises:
        ContextOverflowError: A row is longer than the backbone's context window.
        InvalidInputError: The processor refuses an image or a prompt.
    """
    if not prompts or (answers is not None and len(answers) != len(prompts)):
        found = None if answers is None else len(answers)
        raise InvalidInputError(
            f"Wanted at least one prompt and an answer for each, found {len(prompts)} prompts "
            f"and {found} answers"
        )
    side: Literal["left", "right"] = "left" if answers is None else "right"
    inputs = process(backbone, prompts, padding_side=side, pixels=pixels)
    return finish_batch(backbone, inputs, answers=answers)
