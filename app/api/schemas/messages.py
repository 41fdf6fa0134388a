"""Messages of a conversation as callers send them: OpenAI's shape, read as leniently as it is sent.

Fields that are not named here are kept aside, and judged by `app.api.steer.unknown_fields`.

Source: the API reference of OpenAI's chat completions.
"""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from app.api.schemas.fields import MAX_IMAGE_CHARACTERS, MAX_PROMPT_CHARACTERS, is_data_url
from app.rpc.generation import SAFE

MAX_MESSAGES: Final = 1_000
MAX_PARTS: Final = 64
MAX_UNKNOWN_FIELDS: Final = 64
# With those that are known, of which no body has so many.
MAX_FIELDS: Final = 2 * MAX_UNKNOWN_FIELDS

PartText: TypeAlias = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARACTERS), SAFE]


def _require_inline(value: str) -> str:
    if not is_data_url(value):
        raise ValueError("an image is a data: URL; nothing is fetched from other addresses")
    return value


ImageUrl: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_IMAGE_CHARACTERS),
    AfterValidator(_require_inline),
    Field(description="A data: URL of an image file in base64."),
]


class LenientBody(BaseModel):
    """A body whose unknown fields are kept aside instead of being refused at once."""

    model_config = ConfigDict(
        extra="allow", frozen=True, json_schema_extra={"maxProperties": MAX_FIELDS}
    )

    @model_validator(mode="after")
    def _has_few_unknown_fields(self) -> Self:
        if len(self.model_extra or {}) > MAX_UNKNOWN_FIELDS:
            raise ValueError(f"there are more than {MAX_UNKNOWN_FIELDS} unknown fields")
        return self


class ImageAddress(LenientBody):
    """Where an image is: in the request itself."""

    url: ImageUrl


def _as_address(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class ContentPart(LenientBody):
    """A piece of a message: a text or an image."""

    type: Literal["text", "image_url"]
    text: PartText | None = None
    image_url: Annotated[
        ImageAddress | None,
        BeforeValidator(_as_address, json_schema_input_type=ImageUrl | ImageAddress | None),
    ] = None

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Self:
        present = {name for name in ("text", "image_url") if getattr(self, name) is not None}
        if self.type != "text" and not self.text:
            # Beside a picture it says nothing.
            present.discard("text")
        if present != {self.type}:
            raise ValueError("a part has exactly the field that its type names")
        return self


def _as_parts(value: object) -> object:
    if value is None:
        return []
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


ContentParts: TypeAlias = Annotated[tuple[ContentPart, ...], Field(max_length=MAX_PARTS)]


class ChatMessage(LenientBody):
    """What someone said: texts and images in their order."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        ContentParts,
        BeforeValidator(_as_parts, json_schema_input_type=PartText | ContentParts | None),
    ] = ()

    @property
    def text(self) -> str:
        """All of its text; parts stand on lines of their own."""
        return "\n".join(part.text for part in self.content if part.text)

    @property
    def images(self) -> tuple[str, ...]:
        """Its images as data: URLs, in their order."""
        return tuple(part.image_url.url for part in self.content if part.image_url is not None)


Messages: TypeAlias = Annotated[
    tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)
]
