"""Requests about jobs that train, combine or measure vectors, as values.

Nothing is sent here. As in `requests`, methods are made of these.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from vlibrary_client.calls.arguments import (
    CombinationRule,
    DatasetRef,
    EvaluationMethod,
    VectorRef,
    dataset_text,
    listed,
    present,
    vector_text,
)
from vlibrary_client.errors import InvalidInputError
from vlibrary_client.types import JobRecord, JobState, Page
from vlibrary_client.wire.replies import Call, fetched, json_reader, posted


def train(
    name: str,
    dataset: DatasetRef,
    *,
    split: str | None = None,
    shots: int = 16,
    backbone: str | None = None,
    description: str = "",
    tags: Sequence[str] = (),
    **config: Any,  # noqa: ANN401 - the server checks names and bounds
) -> Call[JobRecord]:
    """Queues the training of the next version of `name`.

    Args:
        name: What the vector will be called.
        dataset: A data set, its id or its name.
        split: Which part of the data set; not needed where one is called train.
        shots: How many demonstrations the vector shall stand for.
        backbone: Name or fingerprint of the one to train; needed where workers train several.
        description: What the vector is for.
        tags: Words to find it by.
        **config: Further settings of the training, such as `max_steps=200` or `seed=1`.

    Raises:
        NotFoundError: There is no such data set.
        InvalidInputError: A setting is unknown or out of bounds.
    """
    return posted(
        "/train",
        JobRecord,
        {
            "name": name,
            "dataset": dataset_text(dataset),
            **present(split=split, backbone=backbone),
            "shots": shots,
            "config": config,
            "description": description,
            "tags": listed(tags, "tags"),
        },
    )


def combine(
    name: str,
    vectors: Sequence[VectorRef],
    dataset: DatasetRef,
    *,
    rule: CombinationRule = "learned",
    split: str | None = None,
    seed: int = 0,
    description: str = "",
    tags: Sequence[str] = (),
) -> Call[JobRecord]:
    """Queues the combination of vectors by a rule that looks at labelled items.

    Half of the items whose pictures no part was trained on choose, the other half measures: the
    job's `report` has the combination beside its best part. A weighted sum needs no items and no
    job: see `client.vectors.combine`.

    Args:
        name: What the next version is called.
        vectors: Two to 16, of one backbone.
        dataset: A data set, its id or its name.
        rule: `best` takes the part that does best, `mean` the mean of the shifts, `weighted` the
            mean weighted by how well each part does, `learned` convex weights that are trained.
        split: Which part of the data set; not needed where one is called train.
        seed: Of every draw.
        description: What it is for.
        tags: Words to find it by.

    Raises:
        NotFoundError: A vector or the data set does not exist.
        IncompatibleBackboneError: The vectors were made for different backbones.
        InvalidInputError: There are too few or too many, or one is given twice.
    """
    return posted(
        "/train/combine",
        JobRecord,
        {
            "name": name,
            "vectors": [vector_text(ref) for ref in listed(vectors, "vectors")],
            "dataset": dataset_text(dataset),
            "split": split,
            "rule": rule,
            "seed": seed,
            "description": description,
            "tags": listed(tags, "tags"),
        },
    )


def evaluate(
    vector: VectorRef,
    dataset: DatasetRef,
    *,
    split: str | None = None,
    support_split: str | None = None,
    methods: Sequence[EvaluationMethod] | None = None,
    shots: int = 16,
    items: int = 200,
    seed: int = 0,
) -> Call[JobRecord]:
    """Queues the measurement of a stored vector on a stored data set.

    Items whose pictures the vector was trained on are not asked. The job's `report` has every
    method's accuracy with its 95 % interval, prompt tokens and time a question; the result is
    attached to the vector as an evaluation.

    Args:
        vector: Which version.
        dataset: A data set, its id or its name.
        split: Which part is asked; `test` where nothing is said, or the only one.
        support_split: Which part demonstrations are from; the one to train on where nothing is
            said, or the only one.
        methods: What it is measured beside, of `icl`, `icl_balanced`, `knn_icl` and
            `nearest_copy`; all but `icl_balanced` where nothing is said. Zero-shot and the most
            usual answer always are.
        shots: Demonstrations of `icl` and `knn_icl`.
        items: The most items asked.
        seed: Of every draw.

    Raises:
        NotFoundError: The vector or the data set does not exist.
        InvalidInputError: A method is unknown, or a number out of bounds.
        InvalidDatasetError: There is no such split.
    """
    return posted(
        "/evaluations",
        JobRecord,
        {
            "vector": vector_text(vector),
            "dataset": dataset_text(dataset),
            "split": split,
            "support_split": support_split,
            **present(methods=None if methods is None else listed(methods, "methods")),
            "shots": shots,
            "items": items,
            "seed": seed,
        },
    )


def get_job(job_id: UUID | str) -> Call[JobRecord]:
    """A training job by id.

    Raises:
        InvalidInputError: This is no id.
        NotFoundError: There is none.
    """
    try:
        path = f"/train/{UUID(str(job_id))}"
    except ValueError:
        raise InvalidInputError(f"wanted the id of a job, a UUID, found {job_id}") from None
    return fetched(path, JobRecord)


def list_jobs(
    *, state: JobState | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[JobRecord]]:
    """One page of the training jobs, newest first."""
    return fetched("/train", Page[JobRecord], present(state=state, limit=limit, cursor=cursor))


def cancel_job(job_id: UUID) -> Call[JobRecord]:
    """Asks a job to stop; too late is a conflict."""
    return Call(method="POST", path=f"/train/{job_id}/cancel", read=json_reader(JobRecord))
