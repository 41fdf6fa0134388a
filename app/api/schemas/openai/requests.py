"""Bodies that callers of the OpenAI-compatible routes send.

Only what is honoured is named here; `app.api.steer.unknown_fields` judges every other field.

Source: the API reference of OpenAI's chat completions, (legacy) completions and embeddings;
`top_k` and `repetition_penalty` beside them are vLLM's, as is what is left of completions.
"""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from app.api.schemas.bodies import RequestBody
from app.api.schemas.fields import Flag, ImageText, OnlyReady, Preference, Prompt
from app.api.schemas.messages import LenientBody, Messages, PartText
from app.api.schemas.openai.formats import ResponseFormat
from app.api.schemas.steering import (
    Baseline,
    DemonstrationsChoice,
    SharedStrength,
    VectorField,
)
from app.rpc.generation import (
    MAX_STOPS,
    MinP,
    Penalty,
    RepetitionPenalty,
    StopText,
    StructuredOutputs,
    TopK,
    TopLogprobs,
    TopP,
)
from app.rpc.messages import MAX_EMBED_ITEMS

MAX_MODEL_CHARACTERS: Final = 512
MAX_CHOICES: Final = 8
# As many as OpenAI takes, for which its clients are made.
MAX_EMBEDDED_TEXTS: Final = 2_048
_MOST_TOKENS: Final = 2**53

ModelName: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_MODEL_CHARACTERS),
    Field(description="`<backbone>`, `<backbone>:<vector>` or `<backbone>:auto`."),
]


# What is more than this server generates is made less, not refused.
def _or_all(value: object) -> object:
    # Some servers' examples have -1 for as many as fit.
    return _MOST_TOKENS if value == -1 and not isinstance(value, bool) else value


AnyTokenCount: TypeAlias = Annotated[
    int, Field(ge=1, le=_MOST_TOKENS, strict=True), BeforeValidator(_or_all)
]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_texts(value: object) -> object:
    texts = _as_list(value)
    if isinstance(texts, list) and any(isinstance(one, int | list) for one in texts):
        raise ValueError(
            "wanted texts, found token ids (LangChain embeds texts with "
            "check_embedding_ctx_length=False)"
        )
    return texts


def _as_stops(value: object) -> object:
    stops = _as_list(value)
    return [stop for stop in stops if stop != ""] if isinstance(stops, list) else stops


def _unless_off(value: object) -> object:
    # Some clients write vLLM's old word for "all tokens".
    return 0 if value == -1 and not isinstance(value, bool) else value


def _unless_null(value: object) -> object:
    return {} if value is None else value


Stops: TypeAlias = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
Texts: TypeAlias = Annotated[list[PartText], Field(min_length=1, max_length=MAX_EMBEDDED_TEXTS)]


class StreamOptions(LenientBody):
    """What a stream carries beside the answer."""

    include_usage: Flag | None = None


class ChatSteering(RequestBody):
    """What steers the answer, and settings of the sampling that OpenAI does not have."""

    vector: VectorField = None
    strength: SharedStrength = 1.0
    prefer: Preference | None = None
    only_ready: OnlyReady = True
    baseline: Baseline = False
    demonstrations: DemonstrationsChoice | None = None
    top_k: TopK = 0
    min_p: MinP = 0.0
    repetition_penalty: RepetitionPenalty = 1.0


class SamplingFields(LenientBody):
    """How answers are sampled, in OpenAI's words."""

    model: ModelName
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = None
    top_p: Annotated[TopP | None, Field(description="0 takes the likeliest token.")] = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1, strict=True)] | None = None
    stop: Annotated[
        Stops | None,
        BeforeValidator(_as_stops, json_schema_input_type=StopText | Stops | None),
    ] = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_k: Annotated[
        TopK | None, BeforeValidator(_unless_off, json_schema_input_type=TopK | None)
    ] = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    structured_outputs: StructuredOutputs | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES, strict=True)] | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    vlibrary: Annotated[
        ChatSteering,
        BeforeValidator(_unless_null, json_schema_input_type=ChatSteering | None),
    ] = ChatSteering()


class ChatRequest(SamplingFields):
    """A conversation to answer, in OpenAI's words."""

    messages: Messages
    max_tokens: AnyTokenCount | None = None
    max_completion_tokens: AnyTokenCount | None = None
    logprobs: Flag | None = None
    top_logprobs: TopLogprobs | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise ValueError("max_tokens and max_completion_tokens differ")
        if self.structured_outputs and self.response_format and self.response_format.form:
            raise ValueError("a form is given by response_format or structured_outputs")
        return self


Prompts: TypeAlias = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_CHOICES)]


class CompletionRequest(SamplingFields):
    """Texts to continue, in OpenAI's words."""

    prompt: Annotated[Prompts, BeforeValidator(_as_texts, json_schema_input_type=Prompt | Prompts)]
    max_tokens: AnyTokenCount | None = None
    logprobs: TopLogprobs | None = None

    @model_validator(mode="after")
    def _asks_for_few(self) -> Self:
        if len(self.prompt) * (self.n or 1) > MAX_CHOICES:
            raise ValueError(f"there are at most {MAX_CHOICES} continuations, n of each prompt")
        return self


class EmbeddingImages(RequestBody):
    """Images to embed with the texts: image i belongs to text i, which may then be empty."""

    images: Annotated[list[ImageText | None], Field(min_length=1, max_length=MAX_EMBED_ITEMS)]


class EmbeddingsRequest(LenientBody):
    """Texts, images or both, whose retrieval keys are wanted."""

    model: ModelName
    input: Annotated[Texts, BeforeValidator(_as_texts, json_schema_input_type=PartText | Texts)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[
        int | None, Field(ge=1, le=2**31, strict=True, description="Their own number only.")
    ] = None
    vlibrary: EmbeddingImages | None = None

    @model_validator(mode="after")
    def _items_are_whole(self) -> Self:
        texts, images = self.input, self.images
        if len(images) != len(texts):
            raise ValueError("there are as many vlibrary.images as texts in input")
        if any(not text and image is None for text, image in zip(texts, images, strict=True)):
            raise ValueError("a text in input is not empty unless vlibrary.images has its image")
        return self

    @property
    def images(self) -> list[str | None]:
        """The image of every item that has one."""
        return [None] * len(self.input) if self.vlibrary is None else self.vlibrary.images
