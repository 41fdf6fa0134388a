"""Bodies about stored vectors."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, computed_field

from app.api.schemas.bodies import RequestBody, ResponseBody
from app.api.schemas.fields import Description, Tags, Version
from app.core.identifiers import MAX_VERSION
from app.core.states import ADVICE, VectorStatus


class BackboneBody(ResponseBody):
    """The frozen vision-language model that a vector belongs to."""

    fingerprint: str
    name: str
    architecture: str
    num_layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)


class EvaluationBody(ResponseBody):
    """How well a vector did on held-out items; shares of right answers, with a 95 % interval."""

    dataset: str
    split: str
    scorer: str
    items: int = Field(ge=1)
    accuracy: float
    low: float
    high: float
    zero_shot: float | None
    icl: float | None
    knn_icl: float | None
    created: datetime


class VectorBody(ResponseBody):
    """One stored version of a vector."""

    id: UUID
    name: str
    version: int = Field(ge=1)
    sha256: str
    size_bytes: int = Field(ge=0)
    backbone: BackboneBody
    method: str
    shots: int = Field(ge=0)
    dataset_sha256: str | None
    job_id: UUID | None
    parents: tuple[UUID, ...]
    hyper_parameters: dict[str, Any]
    seed: int
    library_versions: dict[str, str]
    norms: dict[str, Any]
    dose: float | None = Field(
        description="Strength 1 as a share of the residual stream's length, where measured."
    )
    max_dose: float | None = Field(
        description="The largest dose at which held-out answers stayed good, where measured."
    )
    status: VectorStatus
    description: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    created: datetime

    @computed_field(description="What to do about a vector in this state.")  # type: ignore[prop-decorator]
    @property
    def advice(self) -> str:
        """What to do about a vector in this state."""
        return ADVICE[self.status]


class ImportedVectorBody(VectorBody):
    """A version that came as a file."""

    notes: tuple[str, ...] = Field(
        default=(), description="What the file lacks, such as the key that `auto` finds it by."
    )


class VectorDetailBody(VectorBody):
    """One stored version with all that was measured of it."""

    evaluations: tuple[EvaluationBody, ...] = ()
    overlaps: tuple[str, ...] = Field(
        default=(),
        description="Names whose pictures and questions look the same; `auto` abstains between "
        "them as `ambiguous` unless one is preferred.",
    )


class VectorPatch(RequestBody):
    """What may change about a version; what is left out stays."""

    description: Description | None = None
    tags: Tags | None = None
    status: VectorStatus | None = None


class AliasPut(RequestBody):
    """Where an alias shall point, and where it must point now for that to happen."""

    version: Version
    expected_version: Annotated[
        Annotated[int, Field(ge=0, le=MAX_VERSION, strict=True)] | None,
        Field(description="0 means that the alias must not exist yet."),
    ] = None


class AliasBody(ResponseBody):
    """A movable name of one version."""

    name: str
    alias: str
    version: int = Field(ge=1)
    vector_id: UUID
    updated: datetime
