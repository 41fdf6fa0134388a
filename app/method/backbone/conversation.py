"""Prompts of several turns, in the order in which they were said, by the backbone's own template.

Templates differ in what they can write: some put a turn's pictures before its text, some know no
system turn, some want the roles to alternate. What a template would change silently is found by
rendering marks in place of the texts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from jinja2 import TemplateError
from transformers import ProcessorMixin

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.chat import (
    Message,
    as_plain_text,
    control_pattern,
    picture_tokens,
    render,
    user_message,
)
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, solved_messages

MOVED: Final = "The backbone's chat template writes the pictures of a turn before its text"

Role: TypeAlias = Literal["system", "user", "assistant"]

_MARK: Final = re.compile("\ue010t(\\d+)\ue011")
_PICTURE: Final = "picture"


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """What somebody said: texts and pictures in their order."""

    role: Role
    parts: tuple[str | Picture, ...]

    @property
    def pictures(self) -> list[Picture]:
        """Its pictures in their order."""
        return [part for part in self.parts if not isinstance(part, str)]


def build_conversation(
    backbone: Backbone, turns: Sequence[Turn], *, demonstrations: Sequence[Example] = ()
) -> PromptText:
    """A prompt for the last turn of a conversation, which is the user's.

    Args:
        backbone: Whose chat template is used.
        turns: First to last. Those of the system at the very start are written by the template
            where it knows such turns, and at the start of the first other turn where it does not.
        demonstrations: Solved examples between the system's turns and the others; each becomes a
            turn of the user and one of the model.

    Raises:
        InvalidInputError: The template cannot write these turns in this order.
    """
    processor = backbone.processor
    num_leading = _num_leading(turns)
    leading, others = turns[:num_leading], turns[num_leading:]
    shown = solved_messages(processor, demonstrations)
    messages = [*shown, *(_message(processor, turn) for turn in others)]
    if leading and writes_system_turns(processor):
        messages = [*(_message(processor, turn) for turn in leading), *messages]
    elif leading:
        start = [part for turn in leading for part in _message(processor, turn)["content"]]
        messages[0] = {**messages[0], "content": [*start, *messages[0]["content"]]}
    is_moved = _are_pictures_moved(processor, messages)
    return PromptText(
        text=_rendered(processor, messages),
        images=(
            *(picture for turn in leading for picture in turn.pictures),
            *(picture for example in demonstrations for picture in example.pictures),
            *(picture for turn in others for picture in turn.pictures),
        ),
        notes=(MOVED,) if is_moved else (),
    )


def raw_prompt(backbone: Backbone, text: str) -> PromptText:
    """A prompt that is continued as it stands: no turn of anybody is written around it."""
    return PromptText(text=as_plain_text(backbone.processor, text), images=())


def writes_system_turns(processor: ProcessorMixin) -> bool:
    """Whether the template has a way of its own to write what the system says first.

    It has none where it refuses or leaves out such a turn, or opens it with text where turns of the
    user are opened with a control token.
    """
    system = {"role": "system", "content": [{"type": "text", "text": _mark(0)}]}
    user = user_message(_mark(1), num_images=0)
    try:
        plain = render(processor, [user], with_generation_prompt=False)
        whole = render(processor, [system, user], with_generation_prompt=False)
    except (TemplateError, TypeError, KeyError):
        return False
    opening, found, _ = whole.partition(_mark(0))
    if not found or _mark(1) in opening:
        return False
    return _num_control(processor, opening) >= _num_control(processor, plain.partition(_mark(1))[0])


def _num_control(processor: ProcessorMixin, text: str) -> int:
    # The tokenizer itself belongs to another thread.
    return len(control_pattern(processor).findall(text))


def _message(processor: ProcessorMixin, turn: Turn) -> Message:
    content: list[Message] = []
    for part in turn.parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": as_plain_text(processor, part)})
        else:
            content.append({"type": "image"})
    return {"role": turn.role, "content": content}


def latest_turns(turns: Sequence[Turn], count: int) -> list[Turn]:
    """The system's turns at the start, and the last ones of the others."""
    num_leading = _num_leading(turns)
    others = turns[num_leading:]
    return [*turns[:num_leading], *others[len(others) - min(count, len(others)) :]]


def count_turns(turns: Sequence[Turn]) -> int:
    """How many turns there are behind those of the system at the start."""
    return len(turns) - _num_leading(turns)


def _num_leading(turns: Sequence[Turn]) -> int:
    """How many turns of the system the conversation begins with."""
    return next((i for i, turn in enumerate(turns) if turn.role != "system"), len(turns))


def _rendered(processor: ProcessorMixin, messages: Sequence[Message]) -> str:
    try:
        return render(processor, messages, with_generation_prompt=True)
    except (TemplateError, TypeError, KeyError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InvalidInputError(
            f"The backbone's chat template cannot write this conversation: {reason}",
            details={"param": "messages"},
        ) from error


def _are_pictures_moved(processor: ProcessorMixin, messages: Sequence[Message]) -> bool:
    """Whether pictures are written before the text they stood behind; refuses other changes."""
    marked, wanted, in_front = _marked(messages)
    text = _rendered(processor, marked)
    pattern = re.compile(f"{_MARK.pattern}|({re.escape(_placeholder(processor))})")
    found = [match[1] or _PICTURE for match in pattern.finditer(text)]
    if found == wanted:
        return False
    if found == in_front and not any(map(_is_interleaved, messages)):
        return True
    if sorted(found) == sorted(wanted):
        raise InvalidInputError(
            "The backbone's chat template cannot write text and pictures in this order; put each "
            "turn's pictures before its text",
            details={"param": "messages"},
        )
    raise InvalidInputError(
        "The backbone's chat template leaves out a part of this conversation",
        details={"param": "messages"},
    )


def _placeholder(processor: ProcessorMixin) -> str:
    """How the template writes a picture."""
    text = render(processor, [user_message("", num_images=1)], with_generation_prompt=False)
    return next(token for token in picture_tokens(processor) if token in text)


def _marked(messages: Sequence[Message]) -> tuple[list[Message], list[str], list[str]]:
    """The messages with marks for texts; their parts as they stand, and with pictures in front."""
    marked: list[Message] = []
    wanted: list[str] = []
    in_front: list[str] = []
    for message in messages:
        names: list[str] = []
        content: list[Message] = []
        for part in message["content"]:
            is_text = part["type"] == "text"
            names.append(str(len(wanted) + len(names)) if is_text else _PICTURE)
            content.append({"type": "text", "text": _mark(int(names[-1]))} if is_text else part)
        marked.append({**message, "content": content})
        wanted += names
        in_front += sorted(names, key=lambda name: name != _PICTURE)
    return marked, wanted, in_front


def _is_interleaved(message: Message) -> bool:
    """Whether text stands between pictures of one turn."""
    kinds = [part["type"] for part in message["content"]]
    places = [place for place, kind in enumerate(kinds) if kind == "image"]
    return bool(places) and places[-1] - places[0] >= len(places)


def _mark(number: int) -> str:
    return f"\ue010t{number}\ue011"
