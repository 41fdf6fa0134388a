"""Bodies about steered answers."""

from typing import Annotated, Literal, Self, TypeAlias
from uuid import UUID

from pydantic import Field, model_validator

from app.api.schemas.bodies import RequestBody, ResponseBody
from app.api.schemas.fields import (
    MAX_VECTORS,
    BackboneRef,
    Flag,
    ImageText,
    OnlyReady,
    Preference,
    Prompt,
    Reference,
    SplitName,
)
from app.api.schemas.messages import Messages
from app.core.identifiers import AUTO
from app.core.states import VectorStatus
from app.rpc.generation import AppliedVector, GenerateResponse, SamplingParams, Seed, Strength
from app.rpc.messages import MAX_IMAGES

STRENGTH_OF_NOTHING = "a strength is given, and no vector that it could act on"
NOT_RETRIEVED = 'prefer and only_ready are for a vector that is found, with `"vector": "auto"`'


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


SharedStrength: TypeAlias = Annotated[
    Strength, Field(description="The factor of every vector that names none itself.")
]
Baseline: TypeAlias = Annotated[
    Flag, Field(description="Also answer without any vector, to compare.")
]


class DemonstrationsChoice(RequestBody):
    """Items of a stored data set to put before the question."""

    dataset: Reference
    shots: Annotated[int, Field(ge=1, le=64, strict=True)] = 16
    selection: Annotated[
        Literal["random", "nearest", "balanced"],
        Field(
            description="`nearest` in picture and question, the nearest last; `balanced`: of as "
            "many different answers as possible."
        ),
    ] = "random"
    seed: Seed = 0
    split: SplitName | None = None


class SteerRequest(SamplingParams):
    """A prompt with its images, or a conversation, and what shall steer the answer."""

    prompt: Prompt | None = None
    images: Annotated[tuple[ImageText, ...], Field(max_length=MAX_IMAGES)] = ()
    messages: Annotated[
        Messages | None,
        Field(description="Several turns in OpenAI's shape, in place of prompt and images."),
    ] = None
    backbone: BackboneRef | None = None
    vector: VectorField = None
    strength: SharedStrength = 1.0
    prefer: Preference | None = None
    only_ready: OnlyReady = True
    demonstrations: DemonstrationsChoice | None = None
    instruction: Annotated[Prompt | None, Field(description="A text before everything else.")] = (
        None
    )
    is_raw: Annotated[
        Flag,
        Field(
            description="Continue the prompt as it stands, without the chat template; the space "
            "that comes next is part of the answer's text, except where it has a form."
        ),
    ] = False
    fits_context: Annotated[
        Flag,
        Field(
            description="Lower max_tokens to what this server and the context have room for, "
            "instead of refusing the request."
        ),
    ] = False
    baseline: Baseline = False
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

    @model_validator(mode="after")
    def _narrows_what_is_found(self) -> Self:
        if self.vector != AUTO and (self.prefer is not None or not self.only_ready):
            raise ValueError(NOT_RETRIEVED)
        return self


class AppliedBody(AppliedVector):
    """A vector that really was added."""

    id: UUID
    name: str
    version: int = Field(ge=1)
    status: VectorStatus = Field(description="What held-out items showed of it.")
    source: Literal["request", "retrieval", "policy"] = Field(
        description="Who asked for it: the caller, `auto`, or the server's policy."
    )
    effect: Literal["shift", "none"] = Field(
        description="`none` where the strength is 0, or all that was added comes to nothing."
    )


class AutoRetrievalBody(ResponseBody):
    """What `"auto"` found; an abstention means that the answer is unsteered."""

    abstained: bool
    reason: str | None
    score: float | None
    threshold: float | None


class BackboneNameBody(ResponseBody):
    """The backbone that answered."""

    fingerprint: str
    name: str


class SteerBody(GenerateResponse):
    """A generated answer, and proof of what steered it."""

    id: str = Field(description="The request's id.")
    applied: tuple[AppliedBody, ...]
    retrieval: AutoRetrievalBody | None
    backbone: BackboneNameBody
