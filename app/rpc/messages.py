"""What the api and a worker say to each other, as Pydantic models with bounds.

Every number, string and list is bounded here, so that a worker reached by mistake from elsewhere
is as hard to exhaust as the public api. This module knows neither torch nor SQL.
"""

import base64
import binascii
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from app.core.backbones import BackboneDescription

MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGES = 64
MAX_EMBED_ITEMS = 256
MAX_PROMPT_CHARACTERS = 200_000
MAX_SEED = 2**63 - 1
MAX_TURNS = 1_000
MAX_PARTS = 129
MAX_STRENGTH = 10.0
MAX_LOGPROBS = 20
# What stands for the logarithm of zero, which JSON cannot carry.
LEAST_LOGPROB = -9999.0


def _decode_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def _encode_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


ImageBytes = Annotated[
    bytes,
    Field(min_length=1, max_length=MAX_IMAGE_BYTES),
    BeforeValidator(_decode_base64),
    PlainSerializer(_encode_base64, return_type=str, when_used="json"),
]
"""An encoded image file: bytes in Python, base64 text on the wire."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PromptString = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARACTERS)]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Message(BaseModel):
    """Frozen, and refusing what it does not know: both ends are released together."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VectorUse(Message):
    """One stored vector to apply to the request, and how strongly."""

    sha256: Sha256
    vector_id: UUID
    name: str = Field(max_length=100)
    version: int = Field(ge=1)
    strength: float = Field(default=1.0, ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)


class DemonstrationsUse(Message):
    """Items of a stored dataset to put before the query."""

    dataset_id: UUID
    storage_key: str = Field(min_length=1, max_length=512)
    shots: int = Field(ge=1, le=64)
    selection: Literal["random", "nearest"] = "random"
    seed: Seed = 0


class Turn(Message):
    """What somebody said in a conversation.

    A part is a text, or null where the next of the request's images stands.
    """

    role: Literal["system", "user", "assistant"]
    parts: tuple[PromptString | None, ...] = Field(max_length=MAX_PARTS)


class GenerateRequest(Message):
    """One prompt to answer, steered by the vectors it names.

    With `turns` these are the prompt: the last is the user's, whose text is `prompt` as well, and
    `images` are the pictures of all of them. A raw prompt is continued as it stands, without the
    chat template. Where `fits_context`, an answer that cannot be as long
    as `max_tokens` is made shorter instead of refused.
    """

    request_id: str = Field(min_length=1, max_length=128)
    prompt: PromptString
    is_raw: bool = False
    turns: tuple[Turn, ...] = Field(default=(), max_length=MAX_TURNS)
    images: tuple[ImageBytes, ...] = Field(default=(), max_length=MAX_IMAGES)
    vectors: tuple[VectorUse, ...] = Field(default=(), max_length=16)
    demonstrations: DemonstrationsUse | None = None
    instruction: PromptString | None = None
    max_tokens: int = Field(default=32, ge=1, le=8192)
    fits_context: bool = False
    temperature: float = Field(default=0.0, ge=0.0, le=10.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, ge=0.0, le=1.0, allow_inf_nan=False)
    top_k: int = Field(default=0, ge=0, le=1_000_000)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0, allow_inf_nan=False)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0, allow_inf_nan=False)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=10.0, allow_inf_nan=False)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    seed: Seed = 0
    stop: tuple[StopString, ...] = Field(default=(), max_length=16)
    deadline_seconds: float = Field(default=120.0, gt=0.0, le=3600.0, allow_inf_nan=False)
    baseline: bool = False


class Usage(Message):
    """Token counts of one answer."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class AppliedVector(Message):
    """A vector that was really added, by the digest of its stored bytes."""

    sha256: Sha256
    strength: float


class Receipt(Message):
    """Proof that the steering happened.

    `sites_hit` is the smallest number of branches hit in any forward of the request;
    it equals `sites_expected` (two a layer) or the request would have failed.
    `kl_first_token` (nats) is present when the unsteered answer was asked for as well.
    `dose` is the largest ratio, over the layers, of the shift's length to the residual stream's.
    """

    vectors: tuple[AppliedVector, ...]
    sites_hit: int = Field(ge=0)
    sites_expected: int = Field(ge=0)
    num_forwards: int = Field(ge=0)
    kl_first_token: float | None = None
    dose: float | None = None


class Timings(Message):
    """Where a request's wall time went, in milliseconds."""

    queue_ms: Milliseconds
    prefill_ms: Milliseconds
    decode_ms: Milliseconds
    total_ms: Milliseconds


FinishReason = Literal["stop", "length"]


class TokenLogprob(Message):
    """A token that could have come, as text, with its natural log-probability."""

    token_id: int = Field(ge=0)
    text: str
    logprob: float = Field(ge=LEAST_LOGPROB, le=0.0)


class TokenLogprobs(TokenLogprob):
    """The token that was taken, and the likeliest ones in its place."""

    top: tuple[TokenLogprob, ...] = Field(default=(), max_length=MAX_LOGPROBS)


class BaselineAnswer(Message):
    """The same request without any vector."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage


class GenerateResponse(Message):
    """A finished answer. `text` ends before the stop string that ended it.

    `max_tokens` is what it could have had at most; `notes` tell what was not done as it was asked.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    receipt: Receipt
    baseline: BaselineAnswer | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    timings: Timings
    max_tokens: int = Field(ge=1)
    notes: tuple[str, ...] = Field(default=(), max_length=16)


class GenerateDelta(Message):
    """What came since the last one. The texts of all, joined, are the answer's text."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None = None


class EmbedRequest(Message):
    """Items to embed; item i is `images[i]` with `questions[i]`, either may be absent."""

    images: tuple[ImageBytes | None, ...] = Field(max_length=MAX_EMBED_ITEMS)
    questions: tuple[PromptString | None, ...] = Field(max_length=MAX_EMBED_ITEMS)

    @model_validator(mode="after")
    def _items_are_whole(self) -> Self:
        if len(self.images) != len(self.questions) or not self.images:
            raise ValueError("images and questions must be equally long and not empty")
        if any(i is None and q is None for i, q in zip(self.images, self.questions, strict=True)):
            raise ValueError("every item needs an image or a question")
        return self


class EmbedResponse(Message):
    """One float row an item, in the embedding space named."""

    space: str
    dim: int = Field(ge=1)
    embeddings: tuple[tuple[float, ...], ...]
    num_tokens: int = Field(ge=0, description="Of all questions.")


class HealthResponse(Message):
    """What a worker is and how busy it is. A draining worker finishes but admits nothing."""

    status: Literal["ready", "draining"]
    backbone: BackboneDescription
    space: str
    running: int = Field(ge=0)
    waiting: int = Field(ge=0)
    role: Literal["serve", "train", "both"]


class ErrorBody(Message):
    """A library error as it travels; the code names its class in `app.core.errors`."""

    code: str
    message: str
    details: dict[str, JsonValue] = Field(default_factory=dict)
    retry_after_seconds: float | None = None


class StreamLine(Message):
    """One line of a streamed answer: some deltas, then the answer in full, or an error."""

    delta: GenerateDelta | None = None
    answer: GenerateResponse | None = None
    error: ErrorBody | None = None

    @model_validator(mode="after")
    def _has_one_content(self) -> Self:
        if sum(part is not None for part in (self.delta, self.answer, self.error)) != 1:
            raise ValueError("a line is a delta, an answer or an error")
        return self
