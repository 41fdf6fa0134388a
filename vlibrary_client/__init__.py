"""Python client of a VLibrary server: upload, train, retrieve, steer.

    from vlibrary_client import Client

    with Client() as client:
        dataset = client.datasets.upload("pictures/", name="colours")
        job = client.train("colours", dataset, shots=16).wait(progress=True)
        answer = client.steer.generate("What colour?", images=["a.png"], vector=job.vector)
        print(answer.text, answer.applied)

It needs nothing of the server: no torch, no database.
"""

from vlibrary_client.access import AccessKey, AuditPage, Deed, NewAccessKey
from vlibrary_client.answer_streams import AnswerStream, AsyncAnswerStream
from vlibrary_client.answers import (
    Answer,
    AppliedVector,
    AutoRetrieval,
    BackboneName,
    Baseline,
    Delta,
    Receipt,
    Timings,
    TokenLogprob,
    TokenLogprobs,
    Usage,
)
from vlibrary_client.arguments import Demonstrations, SteerOptions, StructuredOutputs, VectorUse
from vlibrary_client.catalogue import VectorFilters
from vlibrary_client.client import AsyncClient, Client
from vlibrary_client.errors import (
    BusyError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    CorruptDataError,
    DeadlineExceededError,
    FieldError,
    IncompatibleBackboneError,
    InvalidDatasetError,
    InvalidImageError,
    InvalidInputError,
    InvalidResponseError,
    InvalidVectorFileError,
    JobCancelledError,
    NotFoundError,
    OutOfDeviceMemoryError,
    RequestTimeoutError,
    SteeringError,
    StorageFullError,
    TooLargeError,
    UnavailableError,
    UnsupportedBackboneError,
    VLibraryError,
    WaitTimeoutError,
    WorkerUnavailableError,
)
from vlibrary_client.in_process import AppliedShift, apply
from vlibrary_client.jobs import AsyncJob, Job
from vlibrary_client.outcomes import Batch, CombinedVector, Compared, Comparison, Outcome, Refusal
from vlibrary_client.types import (
    Alias,
    Backbone,
    Dataset,
    Evaluation,
    JobEvent,
    JobFailure,
    JobRecord,
    Match,
    Page,
    Progress,
    Readiness,
    Retrieval,
    Vector,
    VectorName,
)

__all__ = [
    "AccessKey",
    "Alias",
    "Answer",
    "AnswerStream",
    "AppliedShift",
    "AppliedVector",
    "AsyncAnswerStream",
    "AsyncClient",
    "AsyncJob",
    "AuditPage",
    "AutoRetrieval",
    "Backbone",
    "BackboneName",
    "Baseline",
    "Batch",
    "BusyError",
    "Client",
    "CombinedVector",
    "Compared",
    "Comparison",
    "ConfigurationError",
    "ConflictError",
    "ConnectionFailedError",
    "CorruptDataError",
    "Dataset",
    "DeadlineExceededError",
    "Deed",
    "Delta",
    "Demonstrations",
    "Evaluation",
    "FieldError",
    "IncompatibleBackboneError",
    "InvalidDatasetError",
    "InvalidImageError",
    "InvalidInputError",
    "InvalidResponseError",
    "InvalidVectorFileError",
    "Job",
    "JobCancelledError",
    "JobEvent",
    "JobFailure",
    "JobRecord",
    "Match",
    "NewAccessKey",
    "NotFoundError",
    "OutOfDeviceMemoryError",
    "Outcome",
    "Page",
    "Progress",
    "Readiness",
    "Receipt",
    "Refusal",
    "RequestTimeoutError",
    "Retrieval",
    "SteerOptions",
    "SteeringError",
    "StorageFullError",
    "StructuredOutputs",
    "Timings",
    "TokenLogprob",
    "TokenLogprobs",
    "TooLargeError",
    "UnavailableError",
    "UnsupportedBackboneError",
    "Usage",
    "VLibraryError",
    "Vector",
    "VectorFilters",
    "VectorName",
    "VectorUse",
    "WaitTimeoutError",
    "WorkerUnavailableError",
    "apply",
]
