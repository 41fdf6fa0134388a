"""Python client of a VLibrary server: upload, train, retrieve, steer.

    from vlibrary_client import Client

    with Client() as client:
        dataset = client.datasets.upload("pictures/", name="colours")
        job = client.train("colours", dataset, shots=16).wait(progress=True)
        answer = client.steer.generate("What colour?", images=["a.png"], vector=job.vector)
        print(answer.text, answer.applied)

It needs nothing of the server: no torch, no database.
"""

from vlibrary_client.answers import Answer as Answer
from vlibrary_client.answers import AppliedVector as AppliedVector
from vlibrary_client.answers import AutoRetrieval as AutoRetrieval
from vlibrary_client.answers import BackboneName as BackboneName
from vlibrary_client.answers import Baseline as Baseline
from vlibrary_client.answers import Batch as Batch
from vlibrary_client.answers import CombinedVector as CombinedVector
from vlibrary_client.answers import Compared as Compared
from vlibrary_client.answers import Comparison as Comparison
from vlibrary_client.answers import Delta as Delta
from vlibrary_client.answers import Outcome as Outcome
from vlibrary_client.answers import Receipt as Receipt
from vlibrary_client.answers import Refusal as Refusal
from vlibrary_client.answers import Timings as Timings
from vlibrary_client.answers import TokenLogprob as TokenLogprob
from vlibrary_client.answers import TokenLogprobs as TokenLogprobs
from vlibrary_client.answers import Usage as Usage
from vlibrary_client.calls.access import AccessKey as AccessKey
from vlibrary_client.calls.access import AuditEntry as AuditEntry
from vlibrary_client.calls.access import AuditPage as AuditPage
from vlibrary_client.calls.access import NewAccessKey as NewAccessKey
from vlibrary_client.calls.access import Quotas as Quotas
from vlibrary_client.calls.arguments import Demonstrations as Demonstrations
from vlibrary_client.calls.arguments import SteerOptions as SteerOptions
from vlibrary_client.calls.arguments import StructuredOutputs as StructuredOutputs
from vlibrary_client.calls.arguments import VectorUse as VectorUse
from vlibrary_client.calls.catalogue import VectorFilters as VectorFilters
from vlibrary_client.client import AsyncClient as AsyncClient
from vlibrary_client.client import Client as Client
from vlibrary_client.errors import BusyError as BusyError
from vlibrary_client.errors import ConfigurationError as ConfigurationError
from vlibrary_client.errors import ConflictError as ConflictError
from vlibrary_client.errors import ConnectionFailedError as ConnectionFailedError
from vlibrary_client.errors import ContextOverflowError as ContextOverflowError
from vlibrary_client.errors import CorruptDataError as CorruptDataError
from vlibrary_client.errors import DeadlineExceededError as DeadlineExceededError
from vlibrary_client.errors import FieldError as FieldError
from vlibrary_client.errors import IncompatibleBackboneError as IncompatibleBackboneError
from vlibrary_client.errors import InProgressError as InProgressError
from vlibrary_client.errors import InvalidDatasetError as InvalidDatasetError
from vlibrary_client.errors import InvalidImageError as InvalidImageError
from vlibrary_client.errors import InvalidInputError as InvalidInputError
from vlibrary_client.errors import InvalidResponseError as InvalidResponseError
from vlibrary_client.errors import InvalidVectorFileError as InvalidVectorFileError
from vlibrary_client.errors import JobCancelledError as JobCancelledError
from vlibrary_client.errors import NotFoundError as NotFoundError
from vlibrary_client.errors import OutOfDeviceMemoryError as OutOfDeviceMemoryError
from vlibrary_client.errors import QuotaExceededError as QuotaExceededError
from vlibrary_client.errors import RequestTimeoutError as RequestTimeoutError
from vlibrary_client.errors import SteeringError as SteeringError
from vlibrary_client.errors import StorageFullError as StorageFullError
from vlibrary_client.errors import StorageUnavailableError as StorageUnavailableError
from vlibrary_client.errors import TooLargeError as TooLargeError
from vlibrary_client.errors import UnavailableError as UnavailableError
from vlibrary_client.errors import UnsupportedBackboneError as UnsupportedBackboneError
from vlibrary_client.errors import VLibraryError as VLibraryError
from vlibrary_client.errors import WaitTimeoutError as WaitTimeoutError
from vlibrary_client.errors import WorkerUnavailableError as WorkerUnavailableError
from vlibrary_client.in_process import AppliedShift as AppliedShift
from vlibrary_client.in_process import apply as apply
from vlibrary_client.jobs import AsyncJob as AsyncJob
from vlibrary_client.jobs import Job as Job
from vlibrary_client.streams import AnswerStream as AnswerStream
from vlibrary_client.streams import AsyncAnswerStream as AsyncAnswerStream
from vlibrary_client.types import Alias as Alias
from vlibrary_client.types import Backbone as Backbone
from vlibrary_client.types import Dataset as Dataset
from vlibrary_client.types import Evaluation as Evaluation
from vlibrary_client.types import JobEvent as JobEvent
from vlibrary_client.types import JobFailure as JobFailure
from vlibrary_client.types import JobRecord as JobRecord
from vlibrary_client.types import Match as Match
from vlibrary_client.types import Page as Page
from vlibrary_client.types import Progress as Progress
from vlibrary_client.types import Readiness as Readiness
from vlibrary_client.types import Retrieval as Retrieval
from vlibrary_client.types import Vector as Vector
from vlibrary_client.types import VectorName as VectorName
