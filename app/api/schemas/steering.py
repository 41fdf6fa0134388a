"""Bodies about steered answers."""

from typing import Annotated, Literal, Self, TypeAlias
from uuid import UUID

from pydantic import Field, model_validator

from app.api.schemas.bodies import RequestBody, ResponseBody
from app.api.schemas.fields import (
    MAX_STOPS,
    MAX_VECTORS,
    BackboneRef,
    Flag,
    ImageText,
    Penalty,
    Prompt,
    Reference,
    RepetitionPenalty,
    Seed,
    StopText,
    Strength,
    Temperature,
    TokenCount,
    TopK,
    TopLogprobs,
    TopP,
)
from app.api.schemas.messages import Messages

MAX_IMAGES = 64
STRENGTH_OF_NOTHING = "a strength is given, and no vector that it could act on"


class VectorChoice(RequestBody):
    """A stored vector and how strongly to apply it."""

    ref: Reference
    strength: Strength | None = Field(default=None, description="The request's by default.")


VectorField: TypeAlias = Annotated[
    Reference
    | VectorChoice
    | Annotated[list[Reference | VectorChoice], Field(min_length=1, max_length=MAX_VECTORS)]
    | None,
    Field(
        description="`name`, `name@version`, `name@alias` or an id; the same with a strength; "
        'a list of these; `"auto"` to retrieve one; or nothing for an unsteered answer.'
    ),
]


class DemonstrationsChoice(RequestBody):
    """Items of a stored data set to put before the question."""

    dataset: Reference
    shots: Annotated[int, Field(ge=1, le=64, strict=True)] = 16
    selection: Literal["random", "nearest"] = "random"
    seed: Seed = 0


class SteerRequest(RequestBody):
    """A prompt with its images, or a conversation, and what shall steer the answer."""

    prompt: Prompt | None = None
    images: Annotated[tuple[ImageText, ...], Field(max_length=MAX_IMAGES)] = ()
    messages: Annotated[
        Messages | None,
        Field(description="Several turns in OpenAI's shape, in place of prompt and images."),
    ] = None
    backbone: BackboneRef | None = None
    vector: VectorField = None
    strength: Strength = 1.0
    demonstrations: DemonstrationsChoice | None = None
    instruction: Prompt | None = None
    max_tokens: TokenCount = 32
    is_raw: Annotated[
        Flag,
        Field(description="Continue the prompt as it stands, without the chat template."),
    ] = False
    fits_context: Annotated[
        Flag,
        Field(
            description="Lower max_tokens to what this server and the context have room for, "
            "instead of refusing the request."
        ),
    ] = False
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    top_k: TopK = 0
    presence_penalty: Annotated[
        Penalty, Field(description="Taken from the logits of tokens that were written.")
    ] = 0.0
    frequency_penalty: Annotated[
        Penalty, Field(description="Taken from the logits once for every time a token was written.")
    ] = 0.0
    repetition_penalty: Annotated[
        RepetitionPenalty, Field(description="Above 1, repeated tokens become less probable.")
    ] = 1.0
    logprobs: Annotated[
        TopLogprobs | None,
        Field(description="How many of the likeliest tokens to report with each token's own."),
    ] = None
    seed: Seed = 0
    stop: Annotated[tuple[StopText, ...], Field(max_length=MAX_STOPS)] = ()
    baseline: Flag = False
    stream: Annotated[
        Flag,
        Field(
            description="Answer with server-sent events: `delta`s, and at the end the `answer` "
            "in full or an `error`."
        ),
    ] = False

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("a request has either a prompt or messages")
        others = self.images or self.instruction or self.messages or self.demonstrations
        if self.is_raw and others:
            raise ValueError("a raw prompt is text alone")
        if self.messages is not None and (self.images or self.instruction):
            raise ValueError("with messages, images and instructions are parts of them")
        return self

    @model_validator(mode="after")
    def _strength_acts_on_something(self) -> Self:
        if self.vector is None and self.strength != 1:
            raise ValueError(STRENGTH_OF_NOTHING)
        return self


class UsageBody(ResponseBody):
    """Token counts of one answer."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class AppliedBody(ResponseBody):
    """A vector that really was added."""

    id: UUID
    name: str
    version: int = Field(ge=1)
    sha256: str
    strength: float
    source: Literal["request", "retrieval", "policy"] = Field(
        description="Who asked for it: the caller, `auto`, or the server's policy."
    )
    effect: Literal["shift", "none"] = Field(
        description="`none` where the strength is 0, or all that was added comes to nothing."
    )


class ReceiptBody(ResponseBody):
    """The worker's proof: the sites hit in every forward, of the sites there are."""

    sites_hit: int = Field(ge=0)
    sites_expected: int = Field(ge=0)
    num_forwards: int = Field(ge=0)
    kl_first_token: float | None = Field(description="In nats, against the unsteered answer.")
    dose: float | None = Field(
        description="Length of the shift over that of the residual stream; of all layers, the most."
    )


class AutoRetrievalBody(ResponseBody):
    """What `"auto"` found; an abstention means that the answer is unsteered."""

    abstained: bool
    reason: str | None
    score: float | None
    threshold: float | None


class TokenLogprobBody(ResponseBody):
    """A token that could have come, with its natural log-probability."""

    token_id: int = Field(ge=0)
    text: str
    logprob: float = Field(le=0)


class TokenLogprobsBody(TokenLogprobBody):
    """The token that was taken, and the likeliest ones in its place."""

    top: tuple[TokenLogprobBody, ...]


class BaselineBody(ResponseBody):
    """The same request answered without any vector."""

    text: str
    finish_reason: Literal["stop", "length"]
    usage: UsageBody


class TimingsBody(ResponseBody):
    """Where the request's time went, in milliseconds."""

    queue_ms: float = Field(ge=0)
    prefill_ms: float = Field(ge=0)
    decode_ms: float = Field(ge=0)
    total_ms: float = Field(ge=0)


class BackboneNameBody(ResponseBody):
    """The backbone that answered."""

    fingerprint: str
    name: str


class SteerBody(ResponseBody):
    """A generated answer, and proof of what steered it."""

    id: str = Field(description="The request's id.")
    text: str
    finish_reason: Literal["stop", "length"]
    usage: UsageBody
    applied: tuple[AppliedBody, ...]
    receipt: ReceiptBody
    retrieval: AutoRetrievalBody | None
    baseline: BaselineBody | None
    logprobs: tuple[TokenLogprobsBody, ...] | None
    timings: TimingsBody
    backbone: BackboneNameBody
    max_tokens: int = Field(ge=1, description="The most tokens that the answer could have.")
    notes: tuple[str, ...] = Field(
        description="What was not done as it was asked, or is known not to work."
    )


class DeltaBody(ResponseBody):
    """What came since the last one; the texts of all, joined, are the answer's text."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobsBody, ...] | None
