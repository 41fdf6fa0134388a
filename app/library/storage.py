"""Files by key: a local folder by default, a bucket by setting."""

import asyncio
import datetime as dt
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url
from obstore.store import ObjectStore as AnyStore

from app.core.access import DEFAULT_WORKSPACE
from app.core.errors import (
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    StorageUnavailableError,
    is_out_of_space,
)
from app.core.folders import making_folders

_KEY: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,200}(?:/(?!\.)[A-Za-z0-9._-]{1,200}){0,7}")
_NAMED_BY_DIGEST: Final = re.compile(r"datasets/(?:[^/]+/)?([0-9a-f]{64})\.parquet")
CHUNK_BYTES: Final = 8 * 1024 * 1024
# Somebody waits for an answer; by itself a bucket is tried for three minutes.
RETRY_SECONDS: Final = 15.0
RETRY_AFTER_SECONDS: Final = 5.0
DATASETS: Final = "datasets"
CHECKPOINTS: Final = "checkpoints"
# As the store calls a file of a folder until it is whole; no listing shows one.
_UNFINISHED: Final = "*#[0-9]*"


def dataset_key(sha256: str, *, workspace: str = DEFAULT_WORKSPACE) -> str:
    """Where the file of a data set lies; two workspaces have two files of the same content."""
    # As it was before there were others.
    folder = "" if workspace == DEFAULT_WORKSPACE else f"{workspace}/"
    return f"{DATASETS}/{folder}{sha256}.parquet"


def checkpoint_key(job_id: object) -> str:
    """Where the latest checkpoint of a job lies."""
    return f"{CHECKPOINTS}/{job_id}"


def _check(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise InvalidInputError("An object's key is made of plain segments, none starting with '.'")
    return key


@contextmanager
def _library_errors(wanted: str | None = None) -> Iterator[None]:
    """Errors of the library in place of those of a disk or a bucket's provider.

    `wanted` is the key of what has to be there.
    """
    try:
        yield
    except (OSError, BaseError) as error:
        if wanted is not None and isinstance(error, FileNotFoundError):
            raise NotFoundError(f"There is no object {wanted}") from None
        if is_out_of_space(error):
            raise StorageFullError("There is no room left for this file") from error
        if isinstance(error, BaseError | FileNotFoundError):
            raise StorageUnavailableError(
                f"The object store does not answer as it should: {type(error).__name__}",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error
        raise


class ObjectStore:
    """Puts and gets files; a put is seen whole or not at all, and a malformed key is refused.

    A bucket that is away or refuses raises a StorageUnavailableError, in all methods.

    Args:
        url: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `memory:///`.
            Credentials of a bucket come from the usual variables of its provider.
        scratch: Folder of local copies; the system's own for temporary files if None.

    Raises:
        ConfigurationError: The folder cannot be made.
    """

    def __init__(self, url: str, *, scratch: Path | None = None) -> None:
        self._scratch = scratch
        self._folder: Path | None = None
        parts = urlsplit(url)
        if parts.scheme == "file":
            self._folder = Path(unquote(parts.path))
            with making_folders():
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._store: AnyStore = LocalStore(self._folder)
        else:
            retry_timeout = dt.timedelta(seconds=RETRY_SECONDS)
            self._store = from_url(url, retry_config={"retry_timeout": retry_timeout})

    async def put_file(self, key: str, path: Path) -> None:
        """Stores a file under the key, in place of any before it.

        Raises:
            StorageFullError: There is no room; nothing is stored under the key.
        """
        with _library_errors():
            await obstore.put_async(self._store, _check(key), path, chunk_size=CHUNK_BYTES)

    async def get_file(self, key: str, path: Path) -> str:
        """Writes what is stored under the key to a file, in pieces, and returns its SHA-256.

        Raises:
            NotFoundError: Nothing is stored there.
            CorruptDataError: The key names another digest than that of what was written.
        """
        digest = hashlib.sha256()
        with _library_errors(key):
            result = await obstore.get_async(self._store, _check(key))
            with path.open("wb") as stream:
                async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                    await asyncio.to_thread(_write, stream, digest, bytes(chunk))
        named = _NAMED_BY_DIGEST.fullmatch(key)
        if named is not None and named[1] != digest.hexdigest():
            raise CorruptDataError(f"The stored file {named[1][:12]} does not match its digest")
        return digest.hexdigest()

    @asynccontextmanager
    async def local_copy(self, key: str) -> AsyncIterator[Path]:
        """A file with what is stored under the key, for the block; raises what `get_file` does."""
        with _library_errors():
            if self._scratch is not None:
                self._scratch.mkdir(parents=True, exist_ok=True)
            # Network file systems keep a file that is open, and with it the folder.
            folder = tempfile.TemporaryDirectory(dir=self._scratch, ignore_cleanup_errors=True)
        with folder as name:
            path = Path(name) / "copy"
            await self.get_file(key, path)
            yield path

    async def put_bytes(self, key: str, data: bytes) -> None:
        """Stores bytes under the key, in place of any before them.

        Raises:
            StorageFullError: There is no room; nothing is stored under the key.
        """
        with _library_errors():
            await obstore.put_async(self._store, _check(key), data)

    async def get_bytes(self, key: str) -> bytes:
        """What is stored under the key.

        Raises:
            NotFoundError: Nothing is stored there.
        """
        with _library_errors(key):
            result = await obstore.get_async(self._store, _check(key))
            return bytes(await result.bytes_async())

    async def exists(self, key: str) -> bool:
        """Whether anything is stored under the key."""
        try:
            with _library_errors(key):
                await obstore.head_async(self._store, _check(key))
        except NotFoundError:
            return False
        return True

    async def keys(self, prefix: str) -> dict[str, dt.datetime]:
        """Every key below a prefix, with when it was last put."""
        with _library_errors():
            listing = obstore.list(self._store, prefix=prefix)
            return {
                str(item["path"]): item["last_modified"]
                async for batch in listing
                for item in batch
            }

    def unfinished(self) -> Iterator[Path]:
        """Files of a folder that are being put, or were when a process was killed; no bucket's."""
        return iter(()) if self._folder is None else self._folder.rglob(_UNFINISHED)

    async def delete(self, key: str) -> None:
        """Removes what is stored under the key; harmless when nothing is."""
        with suppress(NotFoundError), _library_errors(key):
            await obstore.delete_async(self._store, _check(key))


def _write(stream: BinaryIO, digest: "hashlib._Hash", chunk: bytes) -> None:
    digest.update(chunk)
    stream.write(chunk)
