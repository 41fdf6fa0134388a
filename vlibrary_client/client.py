"""The clients of a VLibrary server; the async one has the same methods, to be awaited."""

import copy
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, Self, Unpack

import httpx

from vlibrary_client.calls import access, catalogue, queries, requests, sharing, trainings
from vlibrary_client.calls.arguments import SteerOptions
from vlibrary_client.calls.catalogue import VectorFilters
from vlibrary_client.jobs import AsyncJob, Job
from vlibrary_client.streams import AnswerStream, AsyncAnswerStream
from vlibrary_client.types import JobRecord, Page, Vector
from vlibrary_client.wire.connection import http_options, make_client
from vlibrary_client.wire.endpoints import Resource, Transport, endpoint, endpoint_as
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport

DEFAULT_TIMEOUT_SECONDS = 150.0


class _AnyVectors(Resource[Transport]):
    get = endpoint(requests.get_vector)
    list = endpoint(catalogue.list_vectors)
    download = endpoint(requests.download_vector)
    upload = endpoint(requests.upload_vector)
    update = endpoint(requests.update_vector)
    delete = endpoint(requests.delete_vector)
    set_alias = endpoint(requests.set_alias)
    aliases = endpoint(catalogue.list_aliases)
    delete_alias = endpoint(catalogue.delete_alias)
    delete_many = endpoint(catalogue.delete_vectors)
    tag = endpoint(catalogue.change_tags)
    set_status = endpoint(catalogue.change_status)
    prune = endpoint(catalogue.prune_versions)
    compare = endpoint(catalogue.compare_vectors)
    combine = endpoint(catalogue.combine_vectors)
    add_evaluation = endpoint(catalogue.add_evaluation)
    export = endpoint(sharing.export)
    export_gguf = endpoint(sharing.export_gguf)
    import_folder = endpoint(sharing.import_folder)
    push_to_hub = endpoint(sharing.push_to_hub)
    from_hub = endpoint(sharing.from_hub)


class Vectors(_AnyVectors[SyncTransport]):
    """The library of vectors."""

    def iterate(self, **filters: Unpack[VectorFilters]) -> Iterator[Vector]:
        """Every vector that matches the filters, fetched page by page."""
        page = self.list(**filters)
        yield from page
        while page.next_cursor is not None:
            page = self.list(cursor=page.next_cursor, **filters)
            yield from page


class AsyncVectors(_AnyVectors[AsyncTransport]):
    """The library of vectors."""

    async def iterate(self, **filters: Unpack[VectorFilters]) -> AsyncIterator[Vector]:
        """As `Vectors.iterate`."""
        page = await self.list(**filters)
        while True:
            for vector in page:
                yield vector
            if page.next_cursor is None:
                return
            page = await self.list(cursor=page.next_cursor, **filters)


class Datasets(Resource[Transport]):
    """Data sets on the server."""

    upload = endpoint(requests.upload_dataset)
    get = endpoint(requests.get_dataset)
    delete = endpoint(requests.delete_dataset)
    list = endpoint(requests.list_datasets)


class Keys(Resource[Transport]):
    """Keys that open the api; for administrators."""

    create = endpoint(access.create_key)
    list = endpoint(access.list_keys)
    revoke = endpoint(access.revoke_key)


class Steering(Resource[SyncTransport]):
    """Answers of the backbone, steered by vectors."""

    generate = endpoint(queries.generate)

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


class AsyncSteering(Resource[AsyncTransport]):
    """Answers of the backbone, steered by vectors."""

    generate = endpoint(queries.generate)

    def stream(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[SteerOptions]
    ) -> AsyncAnswerStream:
        """As `Steering.stream`."""
        make_call = partial(queries.stream, prompt, timeout=timeout, **options)
        return AsyncAnswerStream(self._transport, make_call)


def _jobs(page: Page[JobRecord], transport: SyncTransport) -> Page[Job]:
    items = tuple(Job(record, transport) for record in page)
    return Page(items=items, next_cursor=page.next_cursor)


def _async_jobs(page: Page[JobRecord], transport: AsyncTransport) -> Page[AsyncJob]:
    items = tuple(AsyncJob(record, transport) for record in page)
    return Page(items=items, next_cursor=page.next_cursor)


class _AnyClient(Resource[Transport]):
    train = endpoint_as(trainings.train, Job, AsyncJob)
    combine = endpoint_as(trainings.combine, Job, AsyncJob)
    evaluate = endpoint_as(trainings.evaluate, Job, AsyncJob)
    job = endpoint_as(trainings.get_job, Job, AsyncJob)
    jobs = endpoint_as(trainings.list_jobs, _jobs, _async_jobs)
    retrieve = endpoint(queries.retrieve)
    audit = endpoint(access.list_audit)
    ready = endpoint(queries.ready)

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self.datasets = Datasets(transport)
        self.keys = Keys(transport)

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """A client on the same connections that waits or tries otherwise; `close` ends both.

        Args:
            timeout: How long an answer may take, in seconds.
            max_retries: Further tries of a request that is harmless to repeat.
        """
        transport: Any = self._transport.changed(timeout_seconds=timeout, max_retries=max_retries)
        other = copy.copy(self)
        for name, part in vars(self).items():
            if isinstance(part, Resource):
                setattr(other, name, type(part)(transport))
        other._transport = transport  # noqa: SLF001 - a client like this one
        return other


class Client(_AnyClient[SyncTransport]):
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
        options = http_options(base_url, api_key, timeout_seconds=timeout)
        http = make_client(httpx.Client, {**options, "transport": transport})
        super().__init__(SyncTransport(http, max_retries=max_retries))
        self.vectors = Vectors(self._transport)
        self.steer = Steering(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()


class AsyncClient(_AnyClient[AsyncTransport]):
    """As `Client`, with the same arguments; use it in an `async with` block, or `aclose` it."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        options = http_options(base_url, api_key, timeout_seconds=timeout)
        http = make_client(httpx.AsyncClient, {**options, "transport": transport})
        super().__init__(AsyncTransport(http, max_retries=max_retries))
        self.vectors = AsyncVectors(self._transport)
        self.steer = AsyncSteering(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._transport.aclose()
