"""Conversations of data sets: LLaVA's and ShareGPT's, OpenAI `messages`, `texts` of the Cauldron.

Every question of the user with the answer after it becomes an item of its own about the picture.
"""

from collections.abc import Mapping
from typing import Any

from vlibrary_client.layouts.items import UnusableError

EXCHANGES = "texts"
CONVERSATIONS = ("conversations", "messages", EXCHANGES)
PLACEHOLDER = "<image>"
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
# What else a turn may say beside its content.
_UNSEEN = ("tool_calls", "function_call", "audio")


def read_turns(value: object, *, name: str) -> tuple[list[tuple[str, str]], list[Any], bool]:
    """The questions and answers of a conversation.

    Returns:
        Them, the pictures that stand in the turns themselves, and whether the first question
        stands beside one.

    Raises:
        UnusableError: It is no conversation of questions and answers about one picture. A turn is
            never dropped and a picture never moved: a system turn, and a picture between texts or
            after the first question, are refused.
    """
    if not isinstance(value, list) or not value:
        raise UnusableError(f"its {name} is no list of turns")
    if name == EXCHANGES:
        value = [
            {"role": role, "content": exchange.get(role) if isinstance(exchange, Mapping) else None}
            for exchange in value
            for role in ("user", "assistant")
        ]
    turns = [_turn(turn, name=name) for turn in value]
    roles = [role for role, _, _ in turns]
    if "system" in roles:
        raise UnusableError(
            f"its {name} has a system turn; leave it out and train with it as the instruction"
        )
    if roles != ["user", "assistant"] * (len(turns) // 2) or not roles:
        raise UnusableError(
            f"its {name} does not alternate from a user's turn to an assistant's, "
            f"found {', '.join(roles[:6])}"
        )
    if any(has_picture for _, _, has_picture in turns[1:]):
        raise UnusableError(f"its {name} shows a picture after the first question")
    images = [image for turn in value for image in _inline(turn)]
    texts = [text for _, text, _ in turns]
    return list(zip(texts[::2], texts[1::2], strict=True)), images, turns[0][2]


def _turn(turn: object, *, name: str) -> tuple[str, str, bool]:
    if not isinstance(turn, Mapping):
        raise UnusableError(f"its {name} has a turn that is no mapping")
    role = _ROLES.get(str(turn.get("role") or turn.get("from")).lower())
    if role is None:
        raise UnusableError(
            f"its {name} has an unknown role: wanted user and assistant, or human and gpt"
        )
    if turn.get("weight") == 0:
        raise UnusableError(f"its {name} has a turn of weight 0, and every answer is trained on")
    unseen = next((field for field in _UNSEEN if turn.get(field)), None)
    if unseen is not None:
        raise UnusableError(f"its {name} has a turn with {unseen}, which prompts cannot show")
    return role, *shown_text(turn.get("content", turn.get("value")), name=name)


def shown_text(content: object, *, name: str) -> tuple[str, bool]:
    """What is said at once, and whether it stands beside a picture.

    Raises:
        UnusableError: There are several pictures, or one that stands between texts.
    """
    parts = _content_parts(content, name=name)
    marks = [index for index, part in enumerate(parts) if part is None]
    if len(marks) > 1:
        raise UnusableError(f"its {name} shows {len(marks)} pictures at once, wanted one")
    if marks and 0 < marks[0] < len(parts) - 1:
        raise UnusableError(f"its {name} shows a picture inside a text, wanted it before or after")
    texts = [part for part in parts if part is not None]
    return "\n".join(texts).strip(), bool(marks)


def _content_parts(content: object, *, name: str) -> list[str | None]:
    """Texts, with None for a picture."""
    if isinstance(content, str):
        return _split(content)
    if not isinstance(content, list):
        raise UnusableError(f"its {name} has a turn without content")
    parts: list[str | None] = []
    for part in content:
        if isinstance(part, Mapping) and part.get("type") in {"image", "image_url"}:
            parts.append(None)
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            parts += _split(part["text"])
        else:
            raise UnusableError(f"its {name} has a part that is neither text nor image")
    return parts


def _split(text: str) -> list[str | None]:
    parts: list[str | None] = []
    for index, part in enumerate(text.split(PLACEHOLDER)):
        if index:
            parts.append(None)
        if part.strip():
            parts.append(part.strip("\n") if PLACEHOLDER in text else part)
    return parts


def _inline(turn: Mapping[str, Any]) -> list[Any]:
    content = turn.get("content")
    found = []
    for part in content if isinstance(content, list) else ():
        if part.get("type") == "image_url":
            url = part.get("image_url")
            found.append(url.get("url") if isinstance(url, Mapping) else url)
        elif part.get("type") == "image":
            found.append(part.get("image") or part.get("path") or part.get("url"))
    return [image for image in found if image is not None]
