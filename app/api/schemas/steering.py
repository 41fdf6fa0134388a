"""Bodies about steered answers."""

from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import Field

from app.api.fields import (
    MAX_VECTORS,
    ImageText,
    Prompt,
    Reference,
    Seed,
    StopText,
    Strength,
)
from app.api.schemas.bodies import RequestBody, ResponseBody

MAX_IMAGES = 64
MAX_TOKENS = 8_192


class VectorChoice(RequestBody):
    """A stored vector and how strongly to apply it."""

    ref: Reference
    strength: Strength | None = Field(default=None, description="The request's by default.")


VectorField: TypeAlias = (
    Reference
    | VectorChoice
    | Annotated[list[Reference | VectorChoice], Field(min_length=1, max_length=MAX_VECTORS)]
    | None
)


class DemonstrationsChoice(RequestBody):
    """Items of a stored data set to put before the question."""

    dataset: Reference
    shots: Annotated[int, Field(ge=1, le=64, strict=True)] = 16
    selection: Literal["random", "nearest"] = "random"
    seed: Seed = 0


class SteerRequest(RequestBody):
    """A prompt, its images, and what shall steer the answer."""

    prompt: Prompt
    images: Annotated[tuple[ImageText, ...], Field(max_length=MAX_IMAGES)] = ()
    vector: Annotated[
        VectorField,
        Field(
            description="`name`, `name@version`, `name@alias` or an id; the same with a strength; "
            'a list of these; `"auto"` to retrieve one; or nothing for an unsteered answer.'
        ),
    ] = None
    strength: Strength = 1.0
    demonstrations: DemonstrationsChoice | None = None
    instruction: Prompt | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS, strict=True)] = 32
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False, strict=True)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 0
    seed: Seed = 0
    stop: Annotated[tuple[StopText, ...], Field(max_length=16)] = ()
    baseline: Annotated[bool, Field(strict=True)] = False


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


class ReceiptBody(ResponseBody):
    """The worker's proof: the sites hit in every forward, of the sites there are."""

    sites_hit: int = Field(ge=0)
    sites_expected: int = Field(ge=0)
    num_forwards: int = Field(ge=0)
    kl_first_token: float | None = Field(description="In nats, against the unsteered answer.")


class AutoRetrievalBody(ResponseBody):
    """What `"auto"` found; an abstention means that the answer is unsteered."""

    abstained: bool
    reason: str | None
    score: float | None
    threshold: float | None


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
    timings: TimingsBody
    backbone: BackboneNameBody
