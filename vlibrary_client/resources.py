"""The sync client's parts: data sets, vectors, steering."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from vlibrary_client import queries, requests
from vlibrary_client.answer_streams import AnswerStream
from vlibrary_client.answers import Answer
from vlibrary_client.arguments import (
    DatasetRef,
    SteerOptions,
    VectorRef,
)
from vlibrary_client.layouts.sources import DatasetSource
from vlibrary_client.transport import SyncTransport
from vlibrary_client.types import Alias, Dataset, Page, Vector, VectorStatus
from vlibrary_client.uploads import parquet_file


class Datasets:
    """Data sets on the server."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def upload(
        self,
        source: DatasetSource,
        *,
        name: str,
        description: str = "",
        columns: Mapping[str, str] | None = None,
        skip_bad: bool = False,
        text_only: bool = False,
    ) -> Dataset:
        """Stores a folder, a file, or an iterable of items as a data set.

        Every layout of `vlibrary_client.layouts` is understood. A folder usually has a
        `metadata.jsonl` beside its images, with lines such as
        `{"file_name": "a.png", "question": "What colour?", "answer": "red"}` (or `answers`, a
        list). Items of an iterable are mappings with `image` (a Pillow image, encoded bytes or a
        path), `question`, and `answer` or `answers`. Uploading the same items again finds the
        same data set. `report` of what comes back tells what was found.

        Args:
            source: What is to be stored.
            name: What it will be called.
            description: Text for people.
            columns: Which of the source's columns is which, such as `{"question": "problem"}`.
            skip_bad: Leave out rows that cannot be used, rather than refuse the source.
            text_only: Take rows without a picture as items of text alone.

        Raises:
            InvalidDatasetError: The source cannot be read, or the server refuses its content.
            VLibraryError: The server refuses, or cannot be reached.
        """
        with parquet_file(source, columns=columns, skip_bad=skip_bad) as path:
            call = requests.upload_dataset(
                path, name=name, description=description, skip_bad=skip_bad, text_only=text_only
            )
            return self._transport.send(call)

    def get(self, dataset: DatasetRef) -> Dataset:
        """One data set by id or name.

        Raises:
            NotFoundError: There is none.
        """
        return self._transport.send(requests.get_dataset(dataset))

    def delete(self, dataset: DatasetRef) -> None:
        """Deletes a data set and its file; vectors that were trained on it stay.

        Raises:
            NotFoundError: There is none.
            ConflictError: A training that has not ended needs it.
        """
        self._transport.send(requests.delete_dataset(dataset))

    def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[Dataset]:
        """One page of the data sets, newest first.

        Raises:
            VLibraryError: The server refuses, or cannot be reached.
        """
        return self._transport.send(requests.list_datasets(limit=limit, cursor=cursor))


class Vectors:
    """The library of vectors."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def get(self, ref: VectorRef) -> Vector:
        """One version by id, `name` (the latest), `name@version` or `name@alias`.

        Raises:
            NotFoundError: There is none.
        """
        return self._transport.send(requests.get_vector(ref))

    def list(
        self,
        *,
        name: str | None = None,
        tag: str | None = None,
        backbone: str | None = None,
        status: VectorStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Vector]:
        """One page of the vectors that match every filter given, newest first.

        Raises:
            VLibraryError: The server refuses, or cannot be reached.
        """
        call = requests.list_vectors(
            name=name, tag=tag, backbone=backbone, status=status, limit=limit, cursor=cursor
        )
        return self._transport.send(call)

    def iterate(
        self,
        *,
        name: str | None = None,
        tag: str | None = None,
        backbone: str | None = None,
        status: VectorStatus | None = None,
    ) -> Iterator[Vector]:
        """Every vector that matches the filters, fetched page by page.

        Raises:
            VLibraryError: The server refuses, or cannot be reached.
        """
        cursor: str | None = None
        while True:
            page = self.list(name=name, tag=tag, backbone=backbone, status=status, cursor=cursor)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def download(self, ref: VectorRef, *, to: Path | None = None) -> bytes:
        """The vector's file, checked against its digest; also written to `to` when given.

        Raises:
            NotFoundError: There is no such vector.
            CorruptDataError: The bytes are not those that were stored.
        """
        content = self._transport.send(requests.download_vector(ref))
        if to is not None:
            to.write_bytes(content)
        return content

    def upload(
        self, content: bytes | Path, *, name: str, description: str = "", tags: Sequence[str] = ()
    ) -> Vector:
        """Imports an M2IV file as the next version of `name`.

        Raises:
            InvalidVectorFileError: The bytes are no M2IV file.
            IncompatibleBackboneError: No backbone that the server knows made it.
        """
        call = requests.upload_vector(content, name=name, description=description, tags=tags)
        return self._transport.send(call)

    def update(
        self,
        ref: VectorRef,
        *,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        status: VectorStatus | None = None,
    ) -> Vector:
        """Changes what is said about a version; what is not given stays.

        Raises:
            NotFoundError: There is no such vector.
        """
        call = requests.update_vector(ref, description=description, tags=tags, status=status)
        return self._transport.send(call)

    def delete(self, ref: VectorRef) -> None:
        """Takes a version out of the library.

        Raises:
            NotFoundError: There is no such vector.
            ConflictError: An alias other than `latest` points at it.
        """
        self._transport.send(requests.delete_vector(ref))

    def set_alias(
        self, name: str, alias: str, version: int, *, expected_version: int | None = None
    ) -> Alias:
        """Points `name@alias` at a version.

        Args:
            name: The vector's name.
            alias: The movable name, such as `prod`.
            version: Where it shall point.
            expected_version: Where it must point now for the change to happen; 0 means that it
                must not exist yet.

        Raises:
            ConflictError: It points elsewhere.
            NotFoundError: There is no such version.
        """
        call = requests.set_alias(name, alias, version, expected_version=expected_version)
        return self._transport.send(call)


class Steering:
    """Answers of the backbone, steered by vectors."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def generate(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[SteerOptions]
    ) -> Answer:
        """The answer to a prompt.

        Args:
            prompt: The question.
            timeout: How long to wait, in seconds.
            **options: Images, vectors and settings; see `SteerOptions`.

        Raises:
            NotFoundError: There is no such vector.
            IncompatibleBackboneError: The vector belongs to another backbone.
            SteeringError: The vector could not be shown to have been applied.
            VLibraryError: The server refuses, or cannot be reached.
        """
        return self._transport.send(queries.generate(prompt, options, timeout_seconds=timeout))

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
        call = queries.stream(prompt, options, timeout_seconds=timeout)
        return AnswerStream(self._transport, call)
