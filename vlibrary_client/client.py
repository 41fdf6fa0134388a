"""The clients of a VLibrary server; the async one has the same methods, to be awaited.

with Client() as client:
dataset = client.datasets.upload("pictures/", name="colours")
job = client.train("colours", dataset, shots=16).wait(progress=True)
answer = client.steer.generate("What colour?", images=["a.png"], vector=job.vector)

async with AsyncClient() as client:
answer = await client.steer.generate("What colour?", images=["a.png"], vector="auto")
"""

import copy
from functools import partial
from typing import Self, Unpack

import httpx

from vlibrary_client.answer_streams import AnswerStream, AsyncAnswerStream
from vlibrary_client.calls import access, queries, requests, trainings
from vlibrary_client.calls.arguments import SteerOptions
from vlibrary_client.training.jobs import AsyncJob, Job
from vlibrary_client.types import JobRecord, Page
from vlibrary_client.vectors import AsyncVectors, Vectors
from vlibrary_client.wire.connection import Connection
from vlibrary_client.wire.endpoints import (
    AsyncResource,
    Resource,
    awaitable,
    awaitable_as,
    blocking,
    blocking_as,
)
from vlibrary_client.wire.retrying import RetryPolicy
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport, TransportChanges

DEFAULT_TIMEOUT_SECONDS = 150.0


class Datasets(Resource):
    """Data sets on the server."""

    upload = blocking(requests.upload_dataset)
    get = blocking(requests.get_dataset)
    delete = blocking(requests.delete_dataset)
    list = blocking(requests.list_datasets)


class AsyncDatasets(AsyncResource):
    """Data sets on the server."""

    upload = awaitable(requests.upload_dataset)
    get = awaitable(requests.get_dataset)
    delete = awaitable(requests.delete_dataset)
    list = awaitable(requests.list_datasets)


class Keys(Resource):
    """Keys that open the api; for administrators."""

    create = blocking(access.create_key)
    list = blocking(access.list_keys)
    revoke = blocking(access.revoke_key)


class Steering(Resource):
    """Answers of the backbone, steered by vectors."""

    generate = blocking(queries.generate)

    def stream(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[SteerOptions]
    ) -> AnswerStream:
        """The answer to a prompt as it comes.

        The request is sent with the first step of the iteration, which raises what `generate`
        would; what goes wrong later is raised by the step that it hits.

            with client.steer.stream("What colour?", vector="colours") as stream:
                for delta in stream:
                    print(delta.text, end="")
            print(stream.answer.applied)

        Args:
            prompt: The question.
            timeout: The longest silence of the server, in seconds.
            **options: As for `generate`.
        """
        return AnswerStream(self._transport, queries.stream(prompt, timeout=timeout, **options))


class AsyncKeys(AsyncResource):
    """Keys that open the api; for administrators."""

    create = awaitable(access.create_key)
    list = awaitable(access.list_keys)
    revoke = awaitable(access.revoke_key)


class AsyncSteering(AsyncResource):
    """Answers of the backbone, steered by vectors."""

    generate = awaitable(queries.generate)

    def stream(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[SteerOptions]
    ) -> AsyncAnswerStream:
        """As `Steering.stream`."""
        make_call = partial(queries.stream, prompt, timeout=timeout, **options)
        return AsyncAnswerStream(self._transport, make_call)


def _job(record: JobRecord, transport: SyncTransport) -> Job:
    return Job(record=record, transport=transport)


def _jobs(page: Page[JobRecord], transport: SyncTransport) -> Page[Job]:
    items = tuple(_job(record, transport) for record in page)
    return Page(items=items, next_cursor=page.next_cursor)


def _async_job(record: JobRecord, transport: AsyncTransport) -> AsyncJob:
    return AsyncJob(record=record, transport=transport)


def _async_jobs(page: Page[JobRecord], transport: AsyncTransport) -> Page[AsyncJob]:
    items = tuple(_async_job(record, transport) for record in page)
    return Page(items=items, next_cursor=page.next_cursor)


class Client:
    """A connection to a VLibrary server; use it in a `with` block, or `close` it.

    Args:
        base_url: Where the server is; `VLIBRARY_URL`, the file
            `~/.config/vlibrary/config.toml`, or this machine's port 8000, when not given.
        api_key: A key, where the server asks for one; `VLIBRARY_API_KEY` or
            the file's, for the file's server, when not given.
        timeout: How long an answer may take, in seconds.
        max_retries: Further tries of a request that is harmless to repeat.
        transport: Replaces the network, for tests.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        connection = Connection(
            base_url=base_url,
            api_key=api_key,
            timeout_seconds=timeout,
            policy=RetryPolicy(max_retries=max_retries),
        )
        self._use(SyncTransport(connection, transport=transport))

    def _use(self, transport: SyncTransport) -> None:
        self._transport = transport
        self.datasets = Datasets(transport)
        self.vectors = Vectors(transport)
        self.steer = Steering(transport)
        self.keys = Keys(transport)

    def with_options(
        self, *, timeout: float | None = None, max_retries: int | None = None
    ) -> "Client":
        """A client on the same connections that waits or tries otherwise; `close` ends both.

        Args:
            timeout: How long an answer may take, in seconds.
            max_retries: Further tries of a request that is harmless to repeat.
        """
        other = copy.copy(self)
        changes = TransportChanges(timeout_seconds=timeout, max_retries=max_retries)
        other._use(self._transport.changed(changes))  # noqa: SLF001 - a client like this one
        return other

    def __enter__(self) -> Self:
        """Returns the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connections."""
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    train = blocking_as(_job, trainings.train)
    combine = blocking_as(_job, trainings.combine)
    evaluate = blocking_as(_job, trainings.evaluate)
    job = blocking_as(_job, trainings.get_job)
    jobs = blocking_as(_jobs, trainings.list_jobs)
    retrieve = blocking(queries.retrieve)
    audit = blocking(access.list_audit)
    ready = blocking(queries.ready)


class AsyncClient:
    """As `Client`; use it in an `async with` block, or `aclose` it.

    Args:
        base_url: As for `Client`.
        api_key: As for `Client`.
        timeout: As for `Client`.
        max_retries: As for `Client`.
        transport: Replaces the network, for tests.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        connection = Connection(
            base_url=base_url,
            api_key=api_key,
            timeout_seconds=timeout,
            policy=RetryPolicy(max_retries=max_retries),
        )
        self._use(AsyncTransport(connection, transport=transport))

    def _use(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self.datasets = AsyncDatasets(transport)
        self.vectors = AsyncVectors(transport)
        self.steer = AsyncSteering(transport)
        self.keys = AsyncKeys(transport)

    def with_options(
        self, *, timeout: float | None = None, max_retries: int | None = None
    ) -> "AsyncClient":
        """A client on the same connections that waits or tries otherwise; `close` ends both.

        Args:
            timeout: How long an answer may take, in seconds.
            max_retries: Further tries of a request that is harmless to repeat.
        """
        other = copy.copy(self)
        changes = TransportChanges(timeout_seconds=timeout, max_retries=max_retries)
        other._use(self._transport.changed(changes))  # noqa: SLF001 - a client like this one
        return other

    async def __aenter__(self) -> Self:
        """Returns the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._transport.aclose()

    train = awaitable_as(_async_job, trainings.train)
    combine = awaitable_as(_async_job, trainings.combine)
    evaluate = awaitable_as(_async_job, trainings.evaluate)
    job = awaitable_as(_async_job, trainings.get_job)
    jobs = awaitable_as(_async_jobs, trainings.list_jobs)
    retrieve = awaitable(queries.retrieve)
    audit = awaitable(access.list_audit)
    ready = awaitable(queries.ready)
