"""Every request of the api as a value; no I/O.

The sync and the async client send the same `Call`s, so they cannot differ in what they ask.
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from vlibrary_client.arguments import (
    DatasetRef,
    VectorRef,
    dataset_text,
    vector_text,
)
from vlibrary_client.calls import Call
from vlibrary_client.replies import json_reader, read_bytes, read_nothing
from vlibrary_client.types import (
    Alias,
    Dataset,
    JobRecord,
    JobState,
    Page,
    Vector,
    VectorStatus,
)

OCTET_STREAM = "application/octet-stream"
PARQUET = "application/vnd.apache.parquet"
# The answer comes after the server has looked at every item.
UPLOAD_TIMEOUT_SECONDS = 960.0


_READ_ALIAS = json_reader(Alias)
_READ_DATASET = json_reader(Dataset)
_READ_DATASETS = json_reader(Page[Dataset])
_READ_JOB = json_reader(JobRecord)
_READ_JOBS = json_reader(Page[JobRecord])
_READ_VECTOR = json_reader(Vector)
_READ_VECTORS = json_reader(Page[Vector])


def _present(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values of any kind
    return {name: value for name, value in values.items() if value is not None}


def _segment(text: str) -> str:
    return quote(text, safe="@")


def upload_dataset(
    path: Path,
    *,
    name: str,
    description: str = "",
    skip_bad: bool = False,
    text_only: bool = False,
) -> Call[Dataset]:
    """Stores the data set at `path`; the same items again are the same data set."""
    return Call(
        method="POST",
        path="/datasets",
        read=_READ_DATASET,
        is_repeatable=True,
        query=_present(
            name=name,
            description=description or None,
            skip_bad="true" if skip_bad else None,
            text_only="true" if text_only else None,
        ),
        content=path,
        headers={"content-type": PARQUET},
        timeout_seconds=UPLOAD_TIMEOUT_SECONDS,
    )


def get_dataset(dataset: DatasetRef) -> Call[Dataset]:
    """One data set by id or name."""
    path = f"/datasets/{_segment(dataset_text(dataset))}"
    return Call(method="GET", path=path, read=_READ_DATASET, is_repeatable=True)


def list_datasets(*, limit: int = 50, cursor: str | None = None) -> Call[Page[Dataset]]:
    """One page of the data sets, newest first."""
    return Call(
        method="GET",
        path="/datasets",
        read=_READ_DATASETS,
        is_repeatable=True,
        query=_present(limit=limit, cursor=cursor),
    )


def train(
    name: str,
    dataset: DatasetRef,
    *,
    split: str | None = None,
    shots: int = 16,
    description: str = "",
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> Call[JobRecord]:
    """Queues a training job; the key in its headers makes a repeated send harmless."""
    return Call(
        method="POST",
        path="/train",
        read=_READ_JOB,
        is_repeatable=True,
        body={
            "name": name,
            "dataset": dataset_text(dataset),
            **_present(split=split),
            "shots": shots,
            "config": dict(config or {}),
            "description": description,
            "tags": list(tags),
        },
        headers={"idempotency-key": str(uuid.uuid4())},
    )


def get_job(job_id: UUID) -> Call[JobRecord]:
    """One training job."""
    return Call(method="GET", path=f"/train/{job_id}", read=_READ_JOB, is_repeatable=True)


def list_jobs(
    *, state: JobState | None = None, limit: int = 50, cursor: str | None = None
) -> Call[Page[JobRecord]]:
    """One page of the training jobs, newest first."""
    return Call(
        method="GET",
        path="/train",
        read=_READ_JOBS,
        is_repeatable=True,
        query=_present(state=state, limit=limit, cursor=cursor),
    )


def cancel_job(job_id: UUID) -> Call[JobRecord]:
    """Asks a job to stop; too late is a conflict."""
    return Call(method="POST", path=f"/train/{job_id}/cancel", read=_READ_JOB, is_repeatable=True)


def get_vector(ref: VectorRef) -> Call[Vector]:
    """One version of a vector, with its evaluations."""
    path = f"/vectors/{_segment(vector_text(ref))}"
    return Call(method="GET", path=path, read=_READ_VECTOR, is_repeatable=True)


def list_vectors(
    *,
    name: str | None = None,
    tag: str | None = None,
    backbone: str | None = None,
    status: VectorStatus | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Call[Page[Vector]]:
    """One page of the vectors, newest first, that match every filter given."""
    return Call(
        method="GET",
        path="/vectors",
        read=_READ_VECTORS,
        is_repeatable=True,
        query=_present(
            name=name, tag=tag, backbone=backbone, status=status, limit=limit, cursor=cursor
        ),
    )


def download_vector(ref: VectorRef) -> Call[bytes]:
    """The stored file, checked against the digest that the server announces."""
    path = f"/vectors/{_segment(vector_text(ref))}/file"
    return Call(method="GET", path=path, read=read_bytes, is_repeatable=True)


def upload_vector(
    content: bytes | Path, *, name: str, description: str = "", tags: Sequence[str] = ()
) -> Call[Vector]:
    """Imports an M2IV file as the next version of `name`."""
    return Call(
        method="POST",
        path="/vectors",
        read=_READ_VECTOR,
        is_repeatable=True,
        query=_present(name=name, description=description or None, tags=list(tags) or None),
        content=content,
        headers={"content-type": OCTET_STREAM},
    )


def update_vector(
    ref: VectorRef,
    *,
    description: str | None = None,
    tags: Sequence[str] | None = None,
    status: VectorStatus | None = None,
) -> Call[Vector]:
    """Changes what is said about a version; what is not given stays."""
    return Call(
        method="PATCH",
        path=f"/vectors/{_segment(vector_text(ref))}",
        read=_READ_VECTOR,
        is_repeatable=True,
        body=_present(
            description=description, tags=None if tags is None else list(tags), status=status
        ),
    )


def delete_dataset(dataset: DatasetRef) -> Call[None]:
    """Takes a data set and its file out of the library."""
    path = get_dataset(dataset).path
    return Call(method="DELETE", path=path, read=read_nothing, is_repeatable=False)


def delete_vector(ref: VectorRef) -> Call[None]:
    """Takes a version out of the library."""
    path = f"/vectors/{_segment(vector_text(ref))}"
    return Call(method="DELETE", path=path, read=read_nothing, is_repeatable=False)


def set_alias(
    name: str, alias: str, version: int, *, expected_version: int | None = None
) -> Call[Alias]:
    """Points an alias at a version, if it still points where the caller believes."""
    return Call(
        method="PUT",
        path=f"/vectors/{_segment(name)}/aliases/{_segment(alias)}",
        read=_READ_ALIAS,
        # With an expected version a repeat would find its own effect and report a conflict.
        is_repeatable=expected_version is None,
        body={"version": version, "expected_version": expected_version},
    )
