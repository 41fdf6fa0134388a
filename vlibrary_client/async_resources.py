"""The async client's parts: data sets, vectors, steering; documented at their sync twins."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Unpack

from vlibrary_client import queries, requests
from vlibrary_client.answer_streams import AsyncAnswerStream
from vlibrary_client.answers import Answer
from vlibrary_client.arguments import (
    DatasetRef,
    SteerOptions,
    VectorRef,
)
from vlibrary_client.layouts.sources import DatasetSource
from vlibrary_client.transport import AsyncTransport
from vlibrary_client.types import Alias, Dataset, Page, Vector, VectorStatus
from vlibrary_client.uploads import parquet_file


class AsyncDatasets:
    """Data sets on the server."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def upload(
        self,
        source: DatasetSource,
        *,
        name: str,
        description: str = "",
        columns: Mapping[str, str] | None = None,
        skip_bad: bool = False,
        text_only: bool = False,
    ) -> Dataset:
        """As `Datasets.upload`."""
        with ExitStack() as stack:
            packed = parquet_file(source, columns=columns, skip_bad=skip_bad)
            path = await asyncio.to_thread(stack.enter_context, packed)
            call = requests.upload_dataset(
                path, name=name, description=description, skip_bad=skip_bad, text_only=text_only
            )
            return await self._transport.send(call)

    async def get(self, dataset: DatasetRef) -> Dataset:
        """As `Datasets.get`."""
        return await self._transport.send(requests.get_dataset(dataset))

    async def delete(self, dataset: DatasetRef) -> None:
        """As `Datasets.delete`."""
        await self._transport.send(requests.delete_dataset(dataset))

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[Dataset]:
        """As `Datasets.list`."""
        return await self._transport.send(requests.list_datasets(limit=limit, cursor=cursor))


class AsyncVectors:
    """The library of vectors."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def get(self, ref: VectorRef) -> Vector:
        """As `Vectors.get`."""
        return await self._transport.send(requests.get_vector(ref))

    async def list(
        self,
        *,
        name: str | None = None,
        tag: str | None = None,
        backbone: str | None = None,
        status: VectorStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Vector]:
        """As `Vectors.list`."""
        call = requests.list_vectors(
            name=name, tag=tag, backbone=backbone, status=status, limit=limit, cursor=cursor
        )
        return await self._transport.send(call)

    async def iterate(
        self,
        *,
        name: str | None = None,
        tag: str | None = None,
        backbone: str | None = None,
        status: VectorStatus | None = None,
    ) -> AsyncIterator[Vector]:
        """As `Vectors.iterate`."""
        cursor: str | None = None
        while True:
            page = await self.list(
                name=name, tag=tag, backbone=backbone, status=status, cursor=cursor
            )
            for vector in page.items:
                yield vector
            cursor = page.next_cursor
            if cursor is None:
                return

    async def download(self, ref: VectorRef, *, to: Path | None = None) -> bytes:
        """As `Vectors.download`."""
        content = await self._transport.send(requests.download_vector(ref))
        if to is not None:
            await asyncio.to_thread(to.write_bytes, content)
        return content

    async def upload(
        self, content: bytes | Path, *, name: str, description: str = "", tags: Sequence[str] = ()
    ) -> Vector:
        """As `Vectors.upload`."""
        call = requests.upload_vector(content, name=name, description=description, tags=tags)
        return await self._transport.send(call)

    async def update(
        self,
        ref: VectorRef,
        *,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        status: VectorStatus | None = None,
    ) -> Vector:
        """As `Vectors.update`."""
        call = requests.update_vector(ref, description=description, tags=tags, status=status)
        return await self._transport.send(call)

    async def delete(self, ref: VectorRef) -> None:
        """As `Vectors.delete`."""
        await self._transport.send(requests.delete_vector(ref))

    async def set_alias(
        self, name: str, alias: str, version: int, *, expected_version: int | None = None
    ) -> Alias:
        """As `Vectors.set_alias`."""
        call = requests.set_alias(name, alias, version, expected_version=expected_version)
        return await self._transport.send(call)


class AsyncSteering:
    """Answers of the backbone, steered by vectors."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def generate(
        self,
        prompt: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the same spelling as the sync client
        **options: Unpack[SteerOptions],
    ) -> Answer:
        """As `Steering.generate`."""
        # Images may be files.
        call = await asyncio.to_thread(queries.generate, prompt, options, timeout_seconds=timeout)
        return await self._transport.send(call)

    def stream(
        self,
        prompt: str,
        *,
        timeout: float | None = None,
        **options: Unpack[SteerOptions],
    ) -> AsyncAnswerStream:
        """As `Steering.stream`."""
        make_call = partial(queries.stream, prompt, options, timeout_seconds=timeout)
        return AsyncAnswerStream(self._transport, make_call)
