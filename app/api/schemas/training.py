"""Bodies about training jobs."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, Field

from app.api.schemas.bodies import RequestBody, ResponseBody
from app.api.schemas.fields import BackboneRef, Description, Name, Reference, SplitName, Tags
from app.core.jobs import DEFAULTS, MAX_ITEMS, MAX_PARTS, METHODS, JobKind, JobState, Method, Rule
from app.core.states import VectorStatus
from app.method.training.configuration import TrainingSettings


class TrainRequest(RequestBody):
    """What to train on what."""

    name: Name
    dataset: Annotated[Reference, Field(description="The id or the name of a data set.")]
    split: SplitName | None = None
    shots: Annotated[
        int,
        Field(ge=1, le=64, strict=True, description="Demonstrations that it shall stand for."),
    ] = 16
    config: Annotated[
        TrainingSettings,
        Field(
            description="Training settings to change; the others are as they stand here.",
            default_factory=TrainingSettings,
        ),
    ]
    description: Description = ""
    tags: Tags = Field(default=[])
    backbone: BackboneRef | None = None


class CombinationRequest(RequestBody):
    """Which vectors are combined, how, and with which items."""

    name: Name
    vectors: Annotated[list[Reference], Field(min_length=2, max_length=MAX_PARTS)]
    dataset: Annotated[
        Reference,
        Field(
            description="Labelled items: half of those whose pictures no part was trained on "
            "choose the weights, and the other half measures."
        ),
    ]
    split: SplitName | None = None
    rule: Annotated[
        Rule,
        Field(
            description="`best`: the part that does best. `mean`: the mean of the shifts. "
            "`weighted`: the mean weighted by how well each part does. `learned`: convex weights "
            "that are trained."
        ),
    ] = "learned"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] = 0
    description: Description = ""
    tags: Tags = Field(default=[])


class EvaluateRequest(RequestBody):
    """Which stored vector is measured on which stored data set, beside whom."""

    vector: Annotated[Reference, Field(description="The version that is measured.")]
    dataset: Annotated[
        Reference,
        Field(
            description="Labelled items. Those whose pictures the vector was trained on are not "
            "asked."
        ),
    ]
    split: Annotated[
        SplitName | None,
        Field(description="Which part is asked; where nothing is said `test`, or the only one."),
    ] = None
    support_split: Annotated[
        SplitName | None,
        Field(
            description="Which part demonstrations are from; where nothing is said the one to "
            "train on, or the only one."
        ),
    ] = None
    methods: Annotated[
        tuple[Method, ...],
        Field(
            min_length=1,
            max_length=len(METHODS),
            description="`icl`: random demonstrations. `icl_balanced`: 8 of different answers. "
            "`knn_icl`: the nearest in picture and question. `nearest_copy`: the nearest item's "
            "answer. The vector (`m2iv`), `zero_shot` and the `majority` answer are always "
            "measured.",
        ),
    ] = DEFAULTS
    shots: Annotated[
        int,
        Field(ge=1, le=64, strict=True, description="Demonstrations of `icl` and `knn_icl`."),
    ] = 16
    items: Annotated[
        int,
        Field(ge=1, le=MAX_ITEMS, strict=True, description="The most items asked, by the seed."),
    ] = 200
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] = 0


class ProgressBody(ResponseBody):
    """How far a job is."""

    phase: str = ""
    step: int = 0
    num_steps: int = 0
    losses: dict[str, float | None] = Field(default_factory=dict)
    learning_rate: float | None = None
    items_per_second: float | None = None
    eta_seconds: float | None = None
    held_out_accuracy: float | None = None


class JobVectorBody(ResponseBody):
    """The vector that a job stored or measured."""

    id: UUID
    name: str
    version: int = Field(ge=1)
    status: VectorStatus


class JobErrorBody(ResponseBody):
    """Why a job failed."""

    code: str
    message: str


class JobBody(ResponseBody):
    """A job: a training, a combination or a measurement."""

    id: UUID
    state: JobState
    kind: JobKind
    name: str
    dataset_id: UUID
    backbone_fingerprint: str | None = Field(
        description="Of the one whose workers take the job; where none is named the first does."
    )
    config: dict[str, Any]
    description: str
    tags: tuple[str, ...]
    # A job that has not begun has told nothing.
    progress: Annotated[ProgressBody | None, BeforeValidator(lambda stored: stored or None)]
    report: dict[str, Any] | None = Field(
        description="How the vector did on held-out items beside its opponents."
    )
    vector: JobVectorBody | None
    error: JobErrorBody | None
    attempts: int = Field(ge=0)
    created: datetime
    started: datetime | None
    finished: datetime | None
    seconds: float | None = Field(description="From its first start to its end.")
    waits_for: str | None = Field(
        default=None,
        description="Why a queued job does not begin, while no worker that is up would take it.",
    )
