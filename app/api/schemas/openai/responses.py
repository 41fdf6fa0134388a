"""Bodies of `/v1/responses`: a conversation in, output items out; nothing is kept.

Source: the API reference of OpenAI's responses, and the `openai` package as its executable form.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from app.api.schemas.bodies import ResponseBody
from app.api.schemas.messages import MAX_MESSAGES, MAX_PARTS, ImageUrl, LenientBody, PartText
from app.api.schemas.openai.answers import SteeringFacts
from app.api.schemas.openai.formats import TextFormat
from app.api.schemas.openai.requests import AnyTokenCount, SamplingFields


class InputPart(LenientBody):
    """A piece of a message: a text or an image."""

    type: Literal["input_text", "output_text", "input_image"]
    text: PartText | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Self:
        wanted = "image_url" if self.type == "input_image" else "text"
        present = {name for name in ("text", "image_url") if getattr(self, name) is not None}
        if present != {wanted}:
            raise ValueError(f"a part of this type has its {wanted} and nothing else")
        return self


def _as_parts(value: object) -> object:
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


def _require_message(value: object) -> object:
    if value != "message":
        raise ValueError(
            "wanted a message, as nothing is stored here that an item could refer to (clients send "
            "messages whole with store: false), and no tools are called"
        )
    return value


InputParts: TypeAlias = Annotated[tuple[InputPart, ...], Field(max_length=MAX_PARTS)]


class InputItem(LenientBody):
    """A message of the conversation so far."""

    type: Annotated[Literal["message"], BeforeValidator(_require_message)] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        InputParts, BeforeValidator(_as_parts, json_schema_input_type=PartText | InputParts)
    ]


def _as_items(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


InputItems: TypeAlias = Annotated[
    tuple[InputItem, ...], Field(min_length=1, max_length=MAX_MESSAGES)
]


class TextSettings(LenientBody):
    """How the answer's text shall be."""

    format: TextFormat | None = None


class ResponsesRequest(SamplingFields):
    """A conversation to answer, in the words of OpenAI's responses."""

    input: Annotated[
        InputItems, BeforeValidator(_as_items, json_schema_input_type=PartText | InputItems)
    ]
    instructions: PartText | None = None
    max_output_tokens: AnyTokenCount | None = None
    text: TextSettings | None = None
    # Named for what stands in it, which is judged as any unknown field.
    reasoning: LenientBody | None = None

    @property
    def form(self) -> TextFormat:
        """How the answer's text shall be."""
        return (self.text and self.text.format) or TextFormat()

    @model_validator(mode="after")
    def _is_one_conversation(self) -> Self:
        if self.instructions and len(self.input) == MAX_MESSAGES:
            raise ValueError(f"there are at most {MAX_MESSAGES} messages with the instructions")
        if self.structured_outputs is not None and self.form.form is not None:
            raise ValueError("a form is given by text.format or structured_outputs")
        return self


class OutputTextBody(ResponseBody):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[Any, ...] = ()


Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class OutputMessageBody(ResponseBody):
    """The message that is the answer."""

    id: str
    type: Literal["message"] = "message"
    status: Status
    role: Literal["assistant"] = "assistant"
    content: tuple[OutputTextBody, ...]


class ResponseUsageBody(ResponseBody):
    """Token counts of one answer."""

    input_tokens: int = Field(ge=0)
    # Nothing is said of what was in a cache.
    input_tokens_details: Mapping[str, int] = {"cached_tokens": 0}
    output_tokens: int = Field(ge=0)
    # Backbones here answer without reasoning first.
    output_tokens_details: Mapping[str, int] = {"reasoning_tokens": 0}
    total_tokens: int = Field(ge=0)


class ResponseObjectBody(ResponseBody):
    """An answer, whole or as far as it is."""

    id: str
    object: Literal["response"] = "response"
    created_at: int = Field(ge=0)
    status: Status
    error: None = None
    incomplete_details: Mapping[str, str] | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: tuple[OutputMessageBody, ...]
    parallel_tool_calls: bool = False
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: float
    text: Annotated[
        Mapping[str, Mapping[str, Any]], Field(description="Its `format` is that of the answer.")
    ]
    tool_choice: Literal["none"] = "none"
    tools: tuple[Any, ...] = ()
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsageBody | None
    metadata: None = None
    vlibrary: SteeringFacts | None = None
