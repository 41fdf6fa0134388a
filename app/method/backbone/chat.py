"""How a processor writes a conversation: its chat template, where an answer starts and ends."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers import ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from app.core.errors import UnsupportedBackboneError

Message: TypeAlias = dict[str, Any]

# Base checkpoints come without a template; this one reads well to a model that completes text.
PLAIN_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ image_token }}"
    "{% elif message['role'] == 'user' %}Question: {{ part['text'] }}\n"
    "{% elif message['role'] == 'system' %}{{ part['text'] }}\n"
    "{% else %}Answer: {{ part['text'] }}\n{% endif %}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)
_UNUSABLE: Final = "The processor's chat template cannot be used"
_TEMPLATE_ERRORS: Final = (TemplateError, TypeError, KeyError, ValueError, AttributeError)
# Two marks that no template, tokenizer or answer contains.
_QUESTION_MARK: Final = "\ue010question\ue011"
_ANSWER_MARK: Final = "\ue010answer\ue011"
# Invisible, and written by nobody; answers are told without it.
_BREAK: Final = "\u2063"
# Tokens of a processor never change, and reading all of them takes long beside a text.
_PATTERNS: Final[WeakKeyDictionary[ProcessorMixin, re.Pattern[str]]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class AnswerFormat:
    """What stands around an answer in the model's turn.

    Attributes:
        opening: Text between the question and the answer: the end of the user's turn and the
            start of the model's.
        lead: Text between `opening` and the answer, often one space or nothing.
    """

    opening: str
    lead: str
    end_token_id: int


def image_token(processor: ProcessorMixin) -> str:
    """What stands for a picture in a rendered text."""
    token = getattr(processor, "image_token", None)
    return token if isinstance(token, str) else "<image>"


def picture_tokens(processor: ProcessorMixin) -> list[str]:
    """What a template may write for a picture, the likeliest first."""
    names = ("image_token", "boi_token", "fake_image_token")
    found = [getattr(processor, name, None) for name in names]
    return [*(str(token) for token in found if token), "<image>"]


def user_message(text: str, *, num_images: int) -> Message:
    """A user's turn: the images, then the text."""
    parts: list[Message] = [{"type": "image"} for _ in range(num_images)]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def model_message(text: str) -> Message:
    """The model's turn."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def render(
    processor: ProcessorMixin, messages: Sequence[Message], *, with_generation_prompt: bool
) -> str:
    """The conversation as the text the processor tokenises, one placeholder an image."""
    extra: dict[str, Any] = {}
    if getattr(processor, "chat_template", None) is None:
        extra = {
            "chat_template": PLAIN_TEMPLATE,
            "image_token": image_token(processor),
        }
    return str(
        processor.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=with_generation_prompt, **extra
        )
    )


def adopt_template(processor: ProcessorMixin) -> None:
    """Gives a processor without a chat template its tokenizer's, if that one writes pictures."""
    found = getattr(processor.tokenizer, "chat_template", None)
    if found is None or getattr(processor, "chat_template", None) is not None:
        return
    processor.chat_template = found
    question = user_message(_QUESTION_MARK, num_images=1)
    try:
        text = render(processor, [question], with_generation_prompt=True)
    except _TEMPLATE_ERRORS:
        text = ""
    # One that was made for texts alone fails, or writes the parts as a list.
    if _QUESTION_MARK not in text or not any(one in text for one in picture_tokens(processor)):
        processor.chat_template = None


def control_pattern(processor: ProcessorMixin) -> re.Pattern[str]:
    """What finds the control tokens and image placeholders in a text."""
    if processor not in _PATTERNS:
        longest_first = sorted(_control_tokens(processor), key=len, reverse=True)
        _PATTERNS[processor] = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
    return _PATTERNS[processor]


def _control_tokens(processor: ProcessorMixin) -> set[str]:
    tokenizer: PreTrainedTokenizerBase = processor.tokenizer
    added = {str(token) for token in tokenizer.get_added_vocab() if not str(token).isspace()}
    names = ("image_token", "video_token", "fake_image_token", "boi_token", "global_image_tag")
    placeholders = {getattr(processor, name, None) for name in names}
    return added | {token for token in placeholders if isinstance(token, str)} - {""}


def _broken(match: re.Match[str]) -> str:
    token = match.group()
    return token[0] + _BREAK + token[1:] if len(token) > 1 else ""


def as_plain_text(processor: ProcessorMixin, text: str) -> str:
    """The text with nothing in it that could become a control token or an image placeholder.

    An invisible separator is put into each such string, and `as_written` takes it out of what a
    model says; other text comes back as it was.
    """
    pattern = control_pattern(processor)
    while pattern.search(text):
        text = pattern.sub(_broken, text)
    return text


def as_written(text: str) -> str:
    """What a model said, with strings that look like control tokens as people write them."""
    return text.replace(_BREAK, "")


def _end_token(tokenizer: PreTrainedTokenizerBase, after: str) -> int:
    specials = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    for token_id in tokenizer.encode(after, add_special_tokens=False):
        if token_id in specials and after.strip():
            return int(token_id)
    if tokenizer.eos_token_id is None:
        raise UnsupportedBackboneError(
            f"{_UNUSABLE}: wanted a token that ends the model's turn, found none"
        )
    return int(tokenizer.eos_token_id)


def find_answer_format(processor: ProcessorMixin) -> AnswerFormat:
    """Reads from the template what stands before and after an answer.

    Raises:
        UnsupportedBackboneError: The template cannot be used, or no token ends the model's turn.
    """
    question = user_message(_QUESTION_MARK, num_images=1)
    answered = [question, model_message(_ANSWER_MARK)]
    try:
        prompt = render(processor, [question], with_generation_prompt=True)
        whole = render(processor, answered, with_generation_prompt=False)
    except _TEMPLATE_ERRORS as error:
        raise UnsupportedBackboneError(
            f"{_UNUSABLE}: {str(error).partition(chr(10))[0]}"
        ) from error
    if _QUESTION_MARK not in prompt:
        raise UnsupportedBackboneError(
            f"{_UNUSABLE}: wanted a prompt with the question, found none"
        )
    opening = prompt.rpartition(_QUESTION_MARK)[2]
    before, _, after = whole.partition(_ANSWER_MARK)
    # A template may open the turn with more than a past turn shows; the answer then comes at once.
    lead = before[len(prompt) :] if before.startswith(prompt) else ""
    end = _end_token(processor.tokenizer, after)
    return AnswerFormat(opening=opening, lead=lead, end_token_id=end)


def encode_answer(processor: ProcessorMixin, layout: AnswerFormat, answer: str) -> list[int]:
    """The ids a model writes to give this answer, up to and including the end of its turn."""
    tokenizer: PreTrainedTokenizerBase = processor.tokenizer
    text = layout.lead + as_plain_text(processor, answer.strip())
    before = tokenizer.encode(layout.opening, add_special_tokens=False)
    both = tokenizer.encode(layout.opening + text, add_special_tokens=False)
    if both[: len(before)] == before:
        ids = both[len(before) :]
    else:
        ids = tokenizer.encode(text, add_special_tokens=False)
    return [*ids, layout.end_token_id]
