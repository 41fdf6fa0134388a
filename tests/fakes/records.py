"""Library records without a library."""

import datetime as dt
from typing import Any

from app.core.identifiers import new_id
from app.library.records import VectorRecord
from tests.fakes.servers.worker import backbone


def vector_record(**changes: Any) -> VectorRecord:  # noqa: ANN401 - any field
    fields: dict[str, Any] = {
        "id": new_id(),
        "name": "colours",
        "version": 1,
        "sha256": "1" * 64,
        "size_bytes": 10,
        "backbone": backbone(),
        "method": "m2iv",
        "shots": 16,
        "dataset_sha256": None,
        "job_id": None,
        "parents": (),
        "hyper_parameters": {},
        "seed": 0,
        "library_versions": {},
        "norms": {},
        "dose": None,
        "max_dose": None,
        "status": "ready",
        "description": "",
        "tags": (),
        "aliases": (),
        "created": dt.datetime(2025, 1, 1, tzinfo=dt.UTC),
        **changes,
    }
    return VectorRecord(**fields)
