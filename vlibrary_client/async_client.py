"""The async client of a VLibrary server; its methods are documented at their sync twins.

async with AsyncClient() as client:
    answer = await client.steer.generate("What colour?", images=["a.png"], vector="auto")
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Self
from uuid import UUID

import httpx

from vlibrary_client import queries, requests
from vlibrary_client.arguments import DatasetRef
from vlibrary_client.async_resources import AsyncDatasets, AsyncSteering, AsyncVectors
from vlibrary_client.client import DEFAULT_TIMEOUT_SECONDS
from vlibrary_client.images import ImageSource
from vlibrary_client.jobs import AsyncJob
from vlibrary_client.retrying import RetryPolicy
from vlibrary_client.transport import AsyncTransport, Connection
from vlibrary_client.types import JobState, Page, Readiness, Retrieval


class AsyncClient:
    """A connection to a VLibrary server; use it in an `async with` block, or `aclose` it.

    Args:
        base_url: Where the server is; `VLIBRARY_URL`, or this machine's port 8000, when not given.
        api_key: A key, where the server asks for one; `VLIBRARY_API_KEY` when not given.
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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        connection = Connection(
            base_url=base_url,
            api_key=api_key,
            timeout_seconds=timeout,
            policy=RetryPolicy(max_retries=max_retries),
        )
        self._transport = AsyncTransport(connection, transport=transport)
        self.datasets = AsyncDatasets(self._transport)
        self.vectors = AsyncVectors(self._transport)
        self.steer = AsyncSteering(self._transport)

    async def __aenter__(self) -> Self:
        """Returns the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """As `Client.close`."""
        await self._transport.aclose()

    async def train(
        self,
        name: str,
        dataset: DatasetRef,
        *,
        split: str | None = None,
        shots: int = 16,
        description: str = "",
        tags: Sequence[str] = (),
        **config: Any,  # noqa: ANN401 - the server checks names and bounds
    ) -> AsyncJob:
        """As `Client.train`."""
        call = requests.train(
            name,
            dataset,
            split=split,
            shots=shots,
            description=description,
            tags=tags,
            config=config,
        )
        return AsyncJob(record=await self._transport.send(call), transport=self._transport)

    async def job(self, job_id: UUID | str) -> AsyncJob:
        """As `Client.job`."""
        record = await self._transport.send(requests.get_job(UUID(str(job_id))))
        return AsyncJob(record=record, transport=self._transport)

    async def jobs(
        self, *, state: JobState | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[AsyncJob]:
        """As `Client.jobs`."""
        page = await self._transport.send(
            requests.list_jobs(state=state, limit=limit, cursor=cursor)
        )
        jobs = tuple(AsyncJob(record=record, transport=self._transport) for record in page.items)
        return Page(items=jobs, next_cursor=page.next_cursor)

    async def retrieve(
        self,
        *,
        image: ImageSource | None = None,
        text: str | None = None,
        embedding: Sequence[float] | None = None,
        k: int = 5,
        backbone: str | None = None,
        min_epoch: int | None = None,
        include_collapsed: bool = False,
    ) -> Retrieval:
        """As `Client.retrieve`."""
        call = await asyncio.to_thread(
            queries.retrieve,
            image=image,
            text=text,
            embedding=embedding,
            k=k,
            backbone=backbone,
            min_epoch=min_epoch,
            include_collapsed=include_collapsed,
        )
        return await self._transport.send(call)

    async def ready(self) -> Readiness:
        """As `Client.ready`."""
        return await self._transport.send(queries.ready())
