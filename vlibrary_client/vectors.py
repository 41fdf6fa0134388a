"""The part of the clients about the library of vectors, with what takes several requests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from vlibrary_client.calls import catalogue, requests
from vlibrary_client.calls.arguments import VectorRef
from vlibrary_client.calls.catalogue import VectorFilters
from vlibrary_client.sharing.folders import VectorFolder, read_folder, write_folder
from vlibrary_client.sharing.gguf import GgufExport, write_gguf
from vlibrary_client.sharing.hub import pull_folder, push_folder
from vlibrary_client.types import Vector
from vlibrary_client.wire.endpoints import AsyncResource, Resource, awaitable, blocking


class PushOptions(TypedDict, total=False):
    """How something is put on the hub; what is not given is as huggingface_hub has it.

    Attributes:
        private: Whether a repository that is made is private.
        commit_message: Of the commit.
        token: Instead of the one of the login.
        endpoint: Another hub.
    """

    private: bool | None
    commit_message: str | None
    token: str | None
    endpoint: str | None


class PullOptions(TypedDict, total=False):
    """How something is fetched from the hub.

    Attributes:
        revision: A branch, a tag or a commit.
        token: Instead of the one of the login.
        endpoint: Another hub.
    """

    revision: str | None
    token: str | None
    endpoint: str | None


class Vectors(Resource):
    """The library of vectors."""

    get = blocking(requests.get_vector)
    list = blocking(catalogue.list_vectors)
    download = blocking(requests.download_vector)
    upload = blocking(requests.upload_vector)
    update = blocking(requests.update_vector)
    delete = blocking(requests.delete_vector)
    set_alias = blocking(requests.set_alias)
    aliases = blocking(catalogue.list_aliases)
    delete_alias = blocking(catalogue.delete_alias)
    delete_many = blocking(catalogue.delete_vectors)
    tag = blocking(catalogue.change_tags)
    set_status = blocking(catalogue.change_status)
    prune = blocking(catalogue.prune_versions)
    compare = blocking(catalogue.compare_vectors)
    combine = blocking(catalogue.combine_vectors)
    add_evaluation = blocking(catalogue.add_evaluation)

    def iterate(self, **filters: Unpack[VectorFilters]) -> Iterator[Vector]:
        """Every vector that matches the filters, fetched page by page.

        Raises:
            VLibraryError: The server refuses, or cannot be reached.
        """
        page = self.list(**filters)
        yield from page
        while page.next_cursor is not None:
            page = self.list(cursor=page.next_cursor, **filters)
            yield from page

    def export(self, ref: VectorRef, folder: str | Path) -> Path:
        """Writes a vector as a folder with `vector.safetensors`, `vector_config.json` and a card.

        Args:
            ref: Which version.
            folder: Made when it is missing; files of the same names are replaced.

        Returns:
            The folder.

        Raises:
            NotFoundError: There is no such vector.
            CorruptDataError: The bytes are not those that were stored.
        """
        vector = self.get(ref)
        return write_folder(Path(folder), vector=vector, content=self.download(vector))

    def export_gguf(self, ref: VectorRef, path: str | Path) -> GgufExport:
        """Writes a vector as a control-vector file of llama.cpp, which is lossy.

        Needs the extra `gguf`; `vlibrary_client.sharing.gguf` tells what is lost.

        Args:
            ref: Which version.
            path: The file; one that is there is replaced.

        Raises:
            NotFoundError: There is no such vector.
            ConfigurationError: `gguf` or `safetensors` is missing.
        """
        vector = self.get(ref)
        return write_gguf(Path(path), vector=vector, content=self.download(vector))

    def import_folder(self, folder: str | Path, *, name: str | None = None) -> Vector:
        """Stores what `export` wrote as the next version of a name; the same file again is found.

        Args:
            folder: With `vector.safetensors` and `vector_config.json`.
            name: What it is called here; as in the folder when not given.

        Raises:
            InvalidVectorFileError: The folder holds no vector.
            CorruptDataError: The file is not the one that the configuration names.
            IncompatibleBackboneError: No backbone that the server knows made it.
        """
        return self._import(read_folder(Path(folder)), name=name)

    def push_to_hub(self, ref: VectorRef, repo_id: str, **options: Unpack[PushOptions]) -> str:
        """Puts a vector into a repository of the Hugging Face hub; the address of the commit.

        The repository has the files of `export` and is made when it is missing. Needs the extra
        `hub`.

        Args:
            ref: Which version.
            repo_id: Such as `me/gears`.
            **options: `private`, `commit_message`, `token` and `endpoint`, as huggingface_hub
                takes them.

        Raises:
            NotFoundError: There is no such vector, or no such repository for the token.
            ConfigurationError: `huggingface_hub` is missing, or told to stay offline.
            ConnectionFailedError: The hub cannot be reached.
        """
        vector = self.get(ref)
        return push_folder(vector, self.download(vector), repo_id=repo_id, **options)

    def from_hub(
        self, repo_id: str, *, name: str | None = None, **options: Unpack[PullOptions]
    ) -> Vector:
        """Stores what a repository of the Hugging Face hub holds; the same file again is found.

        Args:
            repo_id: Such as `me/gears`.
            name: What it is called here; as in the repository when not given.
            **options: `revision`, `token` and `endpoint`, as huggingface_hub takes them.

        Raises:
            NotFoundError: There is no such repository or revision for the token.
            InvalidVectorFileError: It holds no vector.
            CorruptDataError: The file is not the one that the configuration names.
            IncompatibleBackboneError: No backbone that the server knows made it.
            ConfigurationError: `huggingface_hub` is missing, or told to stay offline.
        """
        return self._import(pull_folder(repo_id, **options), name=name)

    def _import(self, found: VectorFolder, *, name: str | None) -> Vector:
        return self.upload(
            found.content,
            name=name or found.config["name"],
            description=found.description,
            tags=found.tags,
        )


class AsyncVectors(AsyncResource):
    """The library of vectors."""

    get = awaitable(requests.get_vector)
    list = awaitable(catalogue.list_vectors)
    download = awaitable(requests.download_vector)
    upload = awaitable(requests.upload_vector)
    update = awaitable(requests.update_vector)
    delete = awaitable(requests.delete_vector)
    set_alias = awaitable(requests.set_alias)
    aliases = awaitable(catalogue.list_aliases)
    delete_alias = awaitable(catalogue.delete_alias)
    delete_many = awaitable(catalogue.delete_vectors)
    tag = awaitable(catalogue.change_tags)
    set_status = awaitable(catalogue.change_status)
    prune = awaitable(catalogue.prune_versions)
    compare = awaitable(catalogue.compare_vectors)
    combine = awaitable(catalogue.combine_vectors)
    add_evaluation = awaitable(catalogue.add_evaluation)

    async def iterate(self, **filters: Unpack[VectorFilters]) -> AsyncIterator[Vector]:
        """As `Vectors.iterate`."""
        cursor: str | None = None
        while True:
            page = await self.list(cursor=cursor, **filters)
            for vector in page:
                yield vector
            cursor = page.next_cursor
            if cursor is None:
                return

    async def export(self, ref: VectorRef, folder: str | Path) -> Path:
        """As `Vectors.export`."""
        vector = await self.get(ref)
        content = await self.download(vector)
        write = partial(write_folder, Path(folder), vector=vector, content=content)
        return await asyncio.to_thread(write)

    async def export_gguf(self, ref: VectorRef, path: str | Path) -> GgufExport:
        """As `Vectors.export_gguf`."""
        vector = await self.get(ref)
        content = await self.download(vector)
        write = partial(write_gguf, Path(path), vector=vector, content=content)
        return await asyncio.to_thread(write)

    async def import_folder(self, folder: str | Path, *, name: str | None = None) -> Vector:
        """As `Vectors.import_folder`."""
        return await self._import(await asyncio.to_thread(read_folder, Path(folder)), name=name)

    async def push_to_hub(
        self, ref: VectorRef, repo_id: str, **options: Unpack[PushOptions]
    ) -> str:
        """As `Vectors.push_to_hub`."""
        vector = await self.get(ref)
        content = await self.download(vector)
        push = partial(push_folder, vector, content, repo_id=repo_id, **options)
        return await asyncio.to_thread(push)

    async def from_hub(
        self, repo_id: str, *, name: str | None = None, **options: Unpack[PullOptions]
    ) -> Vector:
        """As `Vectors.from_hub`."""
        found = await asyncio.to_thread(partial(pull_folder, repo_id, **options))
        return await self._import(found, name=name)

    async def _import(self, found: VectorFolder, *, name: str | None) -> Vector:
        return await self.upload(
            found.content,
            name=name or found.config["name"],
            description=found.description,
            tags=found.tags,
        )
