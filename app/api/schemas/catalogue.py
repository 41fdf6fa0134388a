"""Bodies about many vectors at once, and about aliases and measurements of one."""

import re
from datetime import datetime
from typing import Annotated, Self, TypeAlias
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.api.schemas.bodies import RequestBody, ResponseBody
from app.api.schemas.fields import (
    Cursor,
    Description,
    Fingerprint,
    Limit,
    Name,
    Reference,
    SafeStr,
    SearchedWords,
    Tag,
    Tags,
)
from app.api.schemas.vectors import EvaluationBody, VectorBody
from app.core.identifiers import MAX_TAGS
from app.core.jobs import MAX_PARTS, MAX_WEIGHT
from app.core.states import VectorStatus
from app.library.catalogue.batches import Action
from app.library.catalogue.filters import VectorFilters

MAX_BATCH = 200
MAX_COMPARED = 8
MAX_KEPT = 10_000
MAX_ITEMS = 2**31 - 1

Share: TypeAlias = Annotated[float, Field(ge=0, le=1, strict=True)]
Gain: TypeAlias = Annotated[float, Field(ge=-1, le=1)]
ShortText: TypeAlias = Annotated[SafeStr, Field(min_length=1, max_length=200)]


def _refuse_number(value: object) -> object:
    # It would be read as seconds since 1970.
    if isinstance(value, str) and re.fullmatch(r"[-+.\d]*", value.strip()):
        raise ValueError("a moment is a date and a time in ISO 8601")
    return value


Moment: TypeAlias = Annotated[
    datetime,
    BeforeValidator(_refuse_number),
    Field(description="ISO 8601, with its offset from UTC."),
]


class VectorQuery(BaseModel):
    """What listed vectors must be, all that is given at once, and which page of them."""

    # A filter that is misspelt would list what was not asked for.
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name | None = None
    text: SearchedWords | None = None
    tag: Annotated[list[Tag], Field(max_length=MAX_TAGS, description="Has all of them.")] = Field(
        default_factory=list
    )
    alias: Name | None = None
    backbone: Fingerprint | None = None
    status: VectorStatus | None = None
    method: ShortText | None = None
    dataset: Annotated[
        Fingerprint | None, Field(description="SHA-256 of the data set it was trained on.")
    ] = None
    job_id: UUID | None = None
    parent: Annotated[UUID | None, Field(description="Combined from this one.")] = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    min_accuracy: Annotated[float | None, Field(ge=0, le=1, description="Newest measurement.")] = (
        None
    )
    min_gain: Annotated[
        Gain | None, Field(description="Newest measurement: accuracy above zero-shot.")
    ] = None

    limit: Limit = 50
    cursor: Cursor | None = None

    @model_validator(mode="after")
    def _moments_have_offsets(self) -> Self:
        for moment in (self.created_after, self.created_before):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("a moment needs its offset from UTC, such as Z")
        return self

    def filters(self) -> VectorFilters:
        """As the library takes them."""
        fields = self.model_dump(exclude={"limit", "cursor"})
        tags = tuple(fields.pop("tag"))
        return VectorFilters(tags=tags, dataset_sha256=fields.pop("dataset"), **fields)


class BatchRequest(RequestBody):
    """One change to many vectors."""

    action: Action
    vectors: Annotated[list[Reference], Field(min_length=1, max_length=MAX_BATCH)]
    tags: Annotated[Tags, Field(description="For `tag` and `untag`.")] = Field(default_factory=list)
    status: Annotated[VectorStatus | None, Field(description="For `set-status`.")] = None

    @model_validator(mode="after")
    def _has_what_the_action_needs(self) -> Self:
        if bool(self.tags) != (self.action in {"tag", "untag"}):
            raise ValueError("tags are for `tag` and `untag`, and needed there")
        if (self.status is not None) != (self.action == "set-status"):
            raise ValueError("a status is for `set-status`, and needed there")
        return self


class RefusalBody(ResponseBody):
    """Why one of many was left as it is, by the code that its own request would get."""

    code: str
    detail: str


class OutcomeBody(ResponseBody):
    """What became of one of many."""

    ref: str = Field(description="As it was written in the request.")
    ok: bool
    id: UUID | None = None
    name: str | None = None
    version: int | None = None
    error: RefusalBody | None = None


class BatchBody(ResponseBody):
    """What became of each, in the order of the request; a reference given twice is there once."""

    items: tuple[OutcomeBody, ...]
    num_failed: int = Field(ge=0)


class PruneRequest(RequestBody):
    """How many of the newest versions stay."""

    keep_last: Annotated[int, Field(ge=1, le=MAX_KEPT, strict=True)]


class ComparisonBody(ResponseBody):
    """What the vectors did on the same data set, split and metric."""

    dataset: str
    split: str
    scorer: str
    results: tuple[EvaluationBody | None, ...] = Field(
        description="The newest of each vector, in the order of the request."
    )
    best: int = Field(
        ge=0, description="Position of the highest accuracy; of equal ones the first."
    )
    is_clear: bool = Field(description="Its 95 % interval lies above those of all others measured.")


class ComparedBody(ResponseBody):
    """Several vectors beside each other."""

    vectors: tuple[VectorBody, ...]
    comparisons: tuple[ComparisonBody, ...]
    similarity: tuple[tuple[float | None, ...], ...] = Field(
        description="Cosine between the vectors over all layers; null between backbones."
    )


class PartBody(RequestBody):
    """A vector and how much of it is added."""

    vector: Reference
    weight: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, strict=True)] = 1.0


class CombineRequest(RequestBody):
    """Which vectors are added, and what the sum is called."""

    name: Name
    parts: Annotated[list[PartBody], Field(min_length=2, max_length=MAX_PARTS)]
    description: Description = ""
    tags: Tags = Field(default_factory=list)


class CombinedBody(VectorBody):
    """A sum of vectors, with what was measured of the best of its parts."""

    best_part: UUID | None = Field(
        description="The part with the highest accuracy where parts were measured alike."
    )
    notes: tuple[str, ...]


class EvaluationRequest(RequestBody):
    """A measurement on held-out items that was made elsewhere; shares of right answers."""

    dataset: ShortText
    split: ShortText
    scorer: ShortText
    items: Annotated[int, Field(ge=1, le=MAX_ITEMS, strict=True)]
    accuracy: Share
    low: Annotated[Share, Field(description="Lower end of the 95 % interval.")]
    high: Annotated[Share, Field(description="Upper end of the 95 % interval.")]
    zero_shot: Share | None = None
    icl: Share | None = None
    knn_icl: Share | None = None
