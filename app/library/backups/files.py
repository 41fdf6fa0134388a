"""The files of a backup: a folder, or the same in one tar; seen whole or not at all."""

import contextlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from app.core.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    is_out_of_space,
)
from app.core.identifiers import digest_of
from app.library.backups.manifest import MANIFEST, BackupFile, Manifest, parse_manifest

TAR: Final = ".tar"
MAX_MANIFEST_BYTES: Final = 256 * 1024 * 1024
CHUNK_BYTES: Final = 1024 * 1024


class BackupWriter:
    """Takes one file after the other; nothing is seen at the target before `finish`.

    The target is a folder, or one file where it ends with `.tar`; `work` is an own folder beside
    it.

    Attributes:
        files: What was taken so far.
        scratch: Where a file may be written before it is given to `take`.
    """

    def __init__(self, target: Path, *, work: Path) -> None:
        self._target = target
        self.files: list[BackupFile] = []
        self.scratch = work / "next"
        self._content = work / "content"
        self._archive: tarfile.TarFile | None = None
        if target.suffix == TAR:
            self._archive = tarfile.open(self._content, "w")  # noqa: SIM115 - see `close`
            self._content.chmod(0o600)
        else:
            self._content.mkdir(mode=0o700)

    def take(self, path: str) -> None:
        """Moves the file at `scratch` into the backup."""
        size = self.scratch.stat().st_size
        file = BackupFile(path=path, sha256=digest_of(self.scratch), size_bytes=size)
        self._store(path)
        self.files.append(file)

    def finish(self, manifest: Manifest) -> None:
        """Adds the manifest and puts everything where it was wanted."""
        self.scratch.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        self._store(MANIFEST)
        self.close()
        _sync(self._content)
        self._content.rename(self._target)
        _sync(self._target.parent)

    def close(self) -> None:
        """Lets go of what is open."""
        if self._archive is not None:
            self._archive.close()

    def _store(self, path: str) -> None:
        self.scratch.chmod(0o600)
        if self._archive is not None:
            self._archive.add(self.scratch, arcname=path, filter=_anonymous)
            self.scratch.unlink()
            return
        place = self._content / path
        place.parent.mkdir(parents=True, exist_ok=True)
        self.scratch.rename(place)
        _sync(place)


@contextmanager
def writing_backup(target: Path) -> Iterator[BackupWriter]:
    """A writer of a new backup; what is unfinished at the end of the block is removed.

    Raises:
        ConflictError: Something is there already.
    """
    with contextlib.suppress(OSError):
        # An empty folder that somebody made for it is as good as none.
        target.rmdir()
    if os.path.lexists(target):
        raise ConflictError(f"{target} is there already; a backup replaces nothing")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work,
            contextlib.closing(BackupWriter(target, work=Path(work))) as writer,
        ):
            yield writer
    except OSError as error:
        if is_out_of_space(error):
            # A write that finds no room does not say where.
            error.filename = error.filename or str(target)
        raise


class BackupReader:
    """A backup that is there: a folder, or a tar that was opened.

    Attributes:
        manifest: What the backup says of itself.

    Raises:
        InvalidInputError: It is no backup.
        CorruptDataError: It says nothing of itself.
    """

    def __init__(self, source: Path, archive: tarfile.TarFile | None) -> None:
        self._source = source
        self._archive = archive
        with self.open(MANIFEST) as stream:
            self.manifest: Final = parse_manifest(stream.read(MAX_MANIFEST_BYTES))

    def open(self, path: str) -> BinaryIO:
        """A file of it, as a stream.

        Raises:
            CorruptDataError: It is missing.
        """
        try:
            if self._archive is None:
                return (self._source / path).open("rb")
            stream = self._archive.extractfile(self._member(path))
        except (KeyError, FileNotFoundError):
            stream = None
        if stream is None:
            raise CorruptDataError(f"{self._source} is no whole backup: {path} is missing")
        return cast("BinaryIO", stream)

    def _member(self, path: str) -> tarfile.TarInfo:
        archive = cast("tarfile.TarFile", self._archive)
        with contextlib.suppress(KeyError):
            return archive.getmember(path)
        # As `tar cf backup.tar .` in a folder calls it.
        return archive.getmember(f"./{path}")

    def extract(self, file: BackupFile, target: Path) -> None:
        """Writes a file of it to the target and looks whether it has its digest.

        Raises:
            CorruptDataError: It is missing, or has not.
        """
        with self.open(file.path) as stream, target.open("wb") as copy:
            shutil.copyfileobj(stream, copy, CHUNK_BYTES)
        if digest_of(target) != file.sha256:
            raise CorruptDataError(f"{file.path} of the backup does not match its digest")


@contextmanager
def reading_backup(source: Path) -> Iterator[BackupReader]:
    """A reader of a backup, be it a folder or a tar.

    Raises:
        NotFoundError: Nothing is there.
        InvalidInputError: It is no backup.
        CorruptDataError: A part of it is missing.
    """
    if not source.exists():
        raise NotFoundError(f"No backup at {source}")
    if source.is_dir():
        yield BackupReader(source, None)
        return
    try:
        with tarfile.open(source) as archive:
            yield BackupReader(source, archive)
    except tarfile.TarError as error:
        reason = str(error).partition(":\n")[0]
        raise InvalidInputError(f"{source} is no backup: {reason}") from None


def _anonymous(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = ""
    return item


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
