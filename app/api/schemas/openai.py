"""Bodies that callers of the OpenAI-compatible routes send.

Every field of OpenAI's is named here: it is honoured, it is harmless and ignored, or it would
change the answer and is refused unless it is empty. Unknown fields are refused.

Source: the API reference of OpenAI's chat completions and embeddings.
"""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from app.api.schemas.bodies import RequestBody
from app.api.schemas.fields import (
    MAX_IMAGE_CHARACTERS,
    MAX_PROMPT_CHARACTERS,
    MAX_STOPS,
    Flag,
    ImageText,
    Penalty,
    RepetitionPenalty,
    StopText,
    Strength,
    TokenCount,
    TopK,
    TopLogprobs,
    TopP,
    is_data_url,
    refuse_unstorable,
)
from app.api.schemas.steering import DemonstrationsChoice, VectorField
from app.rpc.messages import MAX_EMBED_ITEMS

MAX_MODEL_CHARACTERS: Final = 512
MAX_MESSAGES: Final = 1_000
MAX_PARTS: Final = 64
MAX_CHARACTERS_IGNORED: Final = 512


def _refuse_unless_empty(value: object) -> None:
    if value not in (None, False, [], {}):
        raise ValueError("this would change the answer and is not supported")


Refused: TypeAlias = Annotated[
    None,
    BeforeValidator(_refuse_unless_empty),
    Field(description="Not supported: null, false or empty only."),
]
IgnoredText: TypeAlias = Annotated[
    str, StringConstraints(max_length=MAX_CHARACTERS_IGNORED), Field(description="Ignored.")
]
IgnoredFlag: TypeAlias = Annotated[bool, Field(description="Ignored.")]
IgnoredMapping: TypeAlias = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], IgnoredText], Field(max_length=16)
]
ModelName: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_MODEL_CHARACTERS),
    Field(description="`<backbone>`, `<backbone>:<vector>` or `<backbone>:auto`."),
]
ImageUrl: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_IMAGE_CHARACTERS),
    Field(description="A data: URL of a PNG, JPEG or WEBP file in base64."),
]
PartText: TypeAlias = Annotated[
    str, StringConstraints(max_length=MAX_PROMPT_CHARACTERS), AfterValidator(refuse_unstorable)
]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Stops: TypeAlias = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
Texts: TypeAlias = Annotated[list[PartText], Field(min_length=1, max_length=MAX_EMBED_ITEMS)]


class ImageAddress(RequestBody):
    """Where an image is: in the request itself."""

    url: ImageUrl
    detail: Annotated[
        Literal["auto", "low", "high", "original"] | None, Field(description="Ignored.")
    ] = None

    @field_validator("url")
    @classmethod
    def _is_inline(cls, value: str) -> str:
        if not is_data_url(value):
            raise ValueError("an image is a data: URL; nothing is fetched from other addresses")
        return value


class ContentPart(RequestBody):
    """A piece of a message: a text or an image."""

    type: Literal["text", "image_url"]
    text: PartText | None = None
    image_url: ImageAddress | None = None

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Self:
        given = {name for name in ("text", "image_url") if getattr(self, name) is not None}
        if given != {self.type}:
            raise ValueError("a part has exactly the field that its type names")
        return self


def _as_parts(value: object) -> object:
    if value is None:
        return []
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


ContentParts: TypeAlias = Annotated[tuple[ContentPart, ...], Field(max_length=MAX_PARTS)]


class ChatMessage(RequestBody):
    """What someone said."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        ContentParts,
        BeforeValidator(_as_parts, json_schema_input_type=PartText | ContentParts | None),
    ] = ()
    name: IgnoredText | None = None
    refusal: IgnoredText | None = None
    audio: Refused = None
    function_call: Refused = None
    tool_calls: Refused = None
    tool_call_id: Refused = None

    @property
    def text(self) -> str:
        """All of its text; parts stand on lines of their own."""
        return "\n".join(part.text for part in self.content if part.text is not None)

    @property
    def images(self) -> tuple[str, ...]:
        """Its images as data: URLs, in their order."""
        return tuple(part.image_url.url for part in self.content if part.image_url is not None)


class TextFormat(RequestBody):
    """The one format of answers that there is."""

    type: Literal["text"]


class StreamOptions(RequestBody):
    """What a stream carries beside the answer."""

    include_usage: Flag | None = None
    include_obfuscation: IgnoredFlag | None = None


class ChatSteering(RequestBody):
    """What steers the answer, and settings of the sampling that OpenAI does not have."""

    vector: VectorField = None
    strength: Strength = 1.0
    baseline: Flag = False
    demonstrations: DemonstrationsChoice | None = None
    top_k: TopK = 0
    repetition_penalty: RepetitionPenalty = 1.0


class IgnoredChatFields(RequestBody):
    """Fields of OpenAI's that change nothing here, or that are refused."""

    metadata: IgnoredMapping | None = None
    parallel_tool_calls: IgnoredFlag | None = None
    prompt_cache_key: IgnoredText | None = None
    prompt_cache_retention: IgnoredText | None = None
    safety_identifier: IgnoredText | None = None
    service_tier: IgnoredText | None = None
    store: IgnoredFlag | None = None
    user: IgnoredText | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    response_format: TextFormat | None = None
    tool_choice: Literal["none", "auto"] | None = None
    audio: Refused = None
    function_call: Refused = None
    functions: Refused = None
    logit_bias: Refused = None
    moderation: Refused = None
    prediction: Refused = None
    prompt_cache_options: Refused = None
    reasoning_effort: Refused = None
    tools: Refused = None
    verbosity: Refused = None
    web_search_options: Refused = None


class ChatRequest(IgnoredChatFields):
    """A question to a backbone, in OpenAI's words."""

    model: ModelName
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=True)] | None = None
    top_p: TopP | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1, strict=True)] | None = None
    stop: Annotated[
        Stops | None,
        BeforeValidator(_as_list, json_schema_input_type=StopText | Stops | None),
    ] = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logprobs: Flag | None = None
    top_logprobs: TopLogprobs | None = None
    n: Annotated[int, Field(ge=1, le=1, strict=True, description="One answer only.")] | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    vlibrary: ChatSteering = ChatSteering()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise ValueError("max_tokens and max_completion_tokens differ")
        return self


class EmbeddingImages(RequestBody):
    """Images to embed with the texts: image i belongs to text i, which may then be empty."""

    images: Annotated[list[ImageText | None], Field(min_length=1, max_length=MAX_EMBED_ITEMS)]


class EmbeddingsRequest(RequestBody):
    """Texts, images or both, whose retrieval keys are wanted."""

    model: ModelName
    input: Annotated[Texts, BeforeValidator(_as_list, json_schema_input_type=PartText | Texts)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Refused = None
    user: IgnoredText | None = None
    vlibrary: EmbeddingImages | None = None

    @model_validator(mode="after")
    def _items_are_whole(self) -> Self:
        texts, images = self.input, self.images
        if len(images) != len(texts):
            raise ValueError("there are as many vlibrary.images as texts in input")
        if any(not text and image is None for text, image in zip(texts, images, strict=True)):
            raise ValueError("a text without an image is not empty")
        return self

    @property
    def images(self) -> list[str | None]:
        """The image of every item that has one."""
        return [None] * len(self.input) if self.vlibrary is None else self.vlibrary.images
