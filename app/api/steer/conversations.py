"""From the messages that callers send to the turns that a worker is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.api.schemas.fields import MAX_PROMPT_CHARACTERS
from app.api.schemas.messages import ChatMessage, ContentPart
from app.api.schemas.openai.responses import InputItem, InputPart
from app.api.schemas.steering import SteerRequest
from app.core.errors import ContextOverflowError, InvalidInputError
from app.rpc.messages import TurnMessage

MAX_CONVERSATION_CHARACTERS: Final = 4 * MAX_PROMPT_CHARACTERS
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What a request asks.

    Attributes:
        turns: Everything that was said, or nothing where one question is asked.
        question: The text of the last turn.
        images: The pictures of all turns as base64 text, in their order.
        num_before: Pictures of earlier turns.
    """

    turns: tuple[TurnMessage, ...]
    question: str
    images: tuple[str, ...]
    num_before: int = 0

    def shown(self, images: Sequence[bytes]) -> bytes | None:
        """The picture that the question is about: its own first one, or the last one before it."""
        own = images[self.num_before :]
        if own:
            return own[0]
        return images[-1] if images else None


def conversation_of(body: SteerRequest) -> Conversation:
    """What the request asks, of its prompt or of its messages.

    Raises:
        ContextOverflowError: They are too long for any backbone.
        InvalidInputError: The messages do not end with a question of the user's, or have a part
            that no turn can have.
    """
    if body.messages is None:
        return Conversation(turns=(), question=body.prompt or "", images=body.images)
    _check(body.messages)
    before = [image for message in body.messages[:-1] for image in message.images]
    question = body.messages[-1]
    return Conversation(
        turns=_turns(body.messages),
        question=question.text,
        images=(*before, *question.images),
        num_before=len(before),
    )


def picture_names(
    messages: Sequence[ChatMessage | InputItem], *, field: str = "messages"
) -> dict[str, str]:
    """Where the caller has each of the pictures that errors call `images.0`, `images.1`, ..."""
    places: list[str] = []
    for index, message in enumerate(messages):
        parts: Sequence[ContentPart | InputPart] = message.content
        places += [
            f"{field}.{index}.content.{number}.image_url"
            for number, part in enumerate(parts)
            if part.image_url is not None
        ]
    return {f"images.{number}": place for number, place in enumerate(places)}


def _check(messages: Sequence[ChatMessage]) -> None:
    question = messages[-1]
    for message in messages:
        if message.role not in _ROLES:
            raise _refusal(f"A message of the role {message.role} is not supported")
        if message.images and _ROLES[message.role] == "system":
            raise _refusal("A system message has no images")
    if question.role == "assistant":
        raise _refusal("The last message is the user's: a begun assistant message is not continued")
    if question.role != "user":
        raise _refusal(f"The last message is the user's, found one of the role {question.role}")
    if not question.text.strip():
        raise _refusal("The last user message has no text")
    if sum(len(message.text) for message in messages) > MAX_CONVERSATION_CHARACTERS:
        raise ContextOverflowError(
            f"A conversation has at most {MAX_CONVERSATION_CHARACTERS} characters",
            details={"param": "messages"},
        )


def _turns(messages: Sequence[ChatMessage]) -> tuple[TurnMessage, ...]:
    """One turn a message; the system's messages at the very start are one turn together."""
    turns: list[TurnMessage] = []
    for message in messages:
        role, parts = _ROLES[message.role], _parts(message)
        is_leading = all(turn.role == "system" for turn in turns)
        if role == "system" and turns and is_leading:
            turns[-1] = TurnMessage(role="system", parts=_joined([*turns[-1].parts, *parts]))
        elif parts or role != "system":
            # A turn in which nothing was said is one all the same.
            turns.append(TurnMessage.model_validate({"role": role, "parts": parts or ("",)}))
    return tuple(turns)


def _parts(message: ChatMessage) -> tuple[str | None, ...]:
    return _joined(
        [None if part.image_url is not None else part.text or "" for part in message.content]
    )


def _joined(parts: Sequence[str | None]) -> tuple[str | None, ...]:
    """The parts with texts that follow each other on lines of one text, and without empty ones."""
    joined: list[str | None] = []
    for part in parts:
        if part == "":
            continue
        last = joined[-1] if joined else None
        if part is not None and last is not None:
            joined[-1] = f"{last}\n{part}"
        else:
            joined.append(part)
    return tuple(joined)


def _refusal(message: str) -> InvalidInputError:
    return InvalidInputError(message, details={"param": "messages"})
