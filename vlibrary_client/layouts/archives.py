"""Archives: WebDataset tars, read as a stream, and packed folders, unpacked within limits."""

import errno
import gzip
import json
import lzma
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.folders import QUESTIONS
from vlibrary_client.layouts.items import Record
from vlibrary_client.layouts.pictures import MAX_PICTURE_BYTES, OF_MAC, PICTURE_KINDS, is_path
from vlibrary_client.layouts.texts import WRAPPED_ARRAY, Twice, object_of

MAX_MEMBERS = 2_000_000
MAX_UNPACKED_BYTES = 4 << 30
MAX_TEXT_BYTES = 1 << 20
METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
)
_TABLES = {".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather"}
HEAD_BYTES = 4096
TAR_PLACE = slice(257, 262)
_BLOCK_BYTES = 1 << 20
_NOWHERE = "a link in the archive"
_ZIP_ENCRYPTED = 0x1
_ZIP_UTF8 = 0x800
_ZIP_METHODS = {9: "Deflate64", 93: "Zstandard"}
GZIP_MAGIC = b"\x1f\x8b"
# What files of Excel, LibreOffice and their like begin with, which are zips themselves.
_OFFICE = ("[Content_Types].xml", "mimetype")
# Files that are hidden, or that somebody or some system put beside the data.
_SAYS_NOTHING = re.compile(
    r"\.|(?:thumbs\.db|desktop\.ini|(?:readme|licen[cs]e)(?:(?:\.\w+)?\.(?:md|txt|rst))?)$",
    re.IGNORECASE,
)
# JSON with more than the fields of one sample: an array, one called data, or an object a line.
_ROWS = re.compile(rf"\s*\[|{WRAPPED_ARRAY}|.*\}}[ \t\r]*\n\s*\{{", re.DOTALL)


def is_packed_tar(path: Path) -> bool:
    """Whether a gzip file holds a tar, or cannot be read."""
    try:
        with gzip.open(path) as file:
            return file.read(tarfile.BLOCKSIZE)[TAR_PLACE] == b"ustar"
    except _DAMAGED:
        return True


def holds_folder(path: Path) -> bool:
    """Whether the archive is a packed folder, and no WebDataset of samples.

    It has a file that lists pictures, that is a table, or that is a JSON array; or it has pictures
    that no other file is called like, and folders may say something of.

    Raises:
        InvalidDatasetError: It is damaged or has too many members.
    """
    try:
        pictures: set[str] = set()
        others: set[str] = set()
        for text, _, stream in _members(path):
            name = PurePosixPath(text)
            if text in _OFFICE:
                raise InvalidDatasetError("a file of an office program: save its table as CSV")
            if OF_MAC in name.parts or _SAYS_NOTHING.match(name.name):
                continue
            if _is_table(name, stream):
                return True
            is_picture = name.suffix.lower()[1:] in PICTURE_KINDS
            (pictures if is_picture else others).add(_sample_of(text)[0])
    except _DAMAGED as error:
        raise InvalidDatasetError("the archive is damaged or cut short") from error
    return not others or (bool(pictures) and pictures.isdisjoint(others))


def _is_table(name: PurePosixPath, stream: Any) -> bool:  # noqa: ANN401
    if name.suffix.lower() == ".json":
        # A sample's fields are called by its name and a dot.
        is_questions = QUESTIONS.search(name.name) is not None and len(name.suffixes) == 1
        head = b"" if stream is None else stream.read(HEAD_BYTES)
        return is_questions or _ROWS.match(head.decode("utf-8-sig", "replace")) is not None
    return name.suffix.lower() in _TABLES


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The archive's plain files as a folder that is gone afterwards.

    Raises:
        InvalidDatasetError: A name leads out of the archive, it is damaged, or unfolds to too much.
    """
    with tempfile.TemporaryDirectory(prefix="vlibrary-") as text:
        folder = Path(text)
        left = MAX_UNPACKED_BYTES
        try:
            for name, size, stream in _members(path):
                inner = PurePosixPath(name)
                if inner.is_absolute() or ".." in inner.parts:
                    raise InvalidDatasetError("a name in the archive leads out of it")
                left -= size
                target = folder / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                if stream is None:
                    target.symlink_to(_NOWHERE)
                    continue
                with target.open("wb") as file:
                    _copy(stream, file, most=size, is_enough=left >= 0)
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            raise InvalidDatasetError("the archive is damaged or cut short") from error
        yield folder


def _copy(stream: Any, file: Any, *, most: int, is_enough: bool) -> None:  # noqa: ANN401
    if not is_enough:
        raise InvalidDatasetError(f"the archive unfolds to more than {MAX_UNPACKED_BYTES} bytes")
    written = 0
    while block := stream.read(_BLOCK_BYTES):
        written += len(block)
        if written > most:
            raise InvalidDatasetError("a file in the archive is larger than it says")
        file.write(block)


def _members(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Name, size and stream of every file; links have no stream, and devices are left out."""
    found_here = _zip_members(path) if zipfile.is_zipfile(path) else _tar_members(path)
    for number, found in enumerate(found_here):
        if number >= MAX_MEMBERS:
            raise InvalidDatasetError(f"the archive has more than {MAX_MEMBERS} members")
        yield found


def _zip_members(path: Path) -> Iterator[tuple[str, int, Any]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                yield _zip_name(info), 0, None
                continue
            if info.flag_bits & _ZIP_ENCRYPTED:
                raise InvalidDatasetError("the archive is encrypted: unpack it first")
            try:
                stream = archive.open(info)
            except NotImplementedError as error:
                method = _ZIP_METHODS.get(info.compress_type, f"method {info.compress_type}")
                raise InvalidDatasetError(
                    f"the archive is packed by {method}, which is not read: pack it by Deflate"
                ) from error
            with stream:
                yield _zip_name(info), info.file_size, stream


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name as it was meant: Macs write UTF-8 unsaid, and old Windows divides as it does."""
    name = info.filename
    if not info.flag_bits & _ZIP_UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _tar_members(path: Path) -> Iterator[tuple[str, int, Any]]:
    with path.open("rb") as file:
        is_packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with gzip.open(path) if is_packed else path.open("rb") as file:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isreg():
                    yield member.name, member.size, archive.extractfile(member)
                elif member.issym() or member.islnk():
                    yield member.name, 0, None
                # The list of members would grow with the archive.
                archive.members = []  # type: ignore[attr-defined]  # not in the stubs
        # tarfile takes any end for the archive's own.
        file.seek(archive.offset)
        if not file.read(tarfile.RECORDSIZE).startswith(bytes(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError("cut short")


def samples(path: Path, *, name: str) -> Iterator[Record]:
    """The samples of a WebDataset tar: members that share their name up to the first dot.

    A `.json` member holds fields; other members of text are a field each, named by their ending.

    Raises:
        InvalidDatasetError: It is damaged or cut short.
    """
    try:
        for key, members in groupby(_named(path), key=itemgetter(0)):
            sample = _Sample()
            problems = [sample.add(*member) for _, *member in members]
            yield Record(
                place=f"{name}: {key}",
                fields=sample.shown(),
                problem=next(filter(None, problems), None),
            )
    except _DAMAGED as error:
        raise InvalidDatasetError(f"{name}: the archive is damaged or cut short") from error


def _named(path: Path) -> Iterator[tuple[str, str, int, Any]]:
    """Members of samples: the sample's name, and the member's ending, size and stream."""
    for member, size, stream in _members(path):
        sample, ending = _sample_of(member)
        if ending and not _SAYS_NOTHING.match(member.rpartition("/")[2]):
            yield sample, ending, size, stream


def _sample_of(member: str) -> tuple[str, str]:
    """The name of a member's sample, up to the first dot, and the member's ending."""
    folder, slash, base = member.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


class _Sample:
    """What the members of one sample say."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._pictures: list[bytes] = []

    def shown(self) -> dict[str, Any]:
        """The fields with the pictures, which a field may call by their names."""
        if not self._pictures:
            return self._fields
        images = self._fields.get("images") or []
        names = images if isinstance(images, list) else [images]
        is_named = len(names) == len(self._pictures) and all(map(is_path, names))
        return {**self._fields, "images": [*([] if is_named else names), *self._pictures]}

    def add(self, ending: str, size: int, stream: Any) -> str | None:  # noqa: ANN401
        """Why a member cannot be used, or None when it can."""
        kind = ending.rpartition(".")[2]
        is_picture = kind in PICTURE_KINDS
        if stream is None:
            return f"its .{ending} is a link, which is not followed"
        if size > (MAX_PICTURE_BYTES if is_picture else MAX_TEXT_BYTES):
            return f"its .{ending} is too large"
        data = stream.read()
        if is_picture:
            self._pictures.append(data)
            return None if data else f"its .{ending} is an empty file"
        try:
            if kind == "json":
                value = json.loads(data, object_pairs_hook=object_of)
            else:
                # Files of text end with the end of their last line.
                text = data.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
                value = {ending.partition(".")[0]: text}
        except (ValueError, RecursionError):
            return f"its .{ending} cannot be read" if kind == "json" else None
        return self._say(value)

    def _say(self, value: object) -> str | None:
        if isinstance(value, Twice):
            return f"its .json has the name {value.name[:40]} twice"
        if not isinstance(value, dict):
            return "its .json is no object"
        # Tables hold as numbers what files of text cannot.
        both = self._fields.keys() & value.keys()
        twice = next((one for one in both if str(self._fields[one]) != str(value[one])), None)
        self._fields.update(value)
        return None if twice is None else f"its {twice[:40]} is there twice, and differs"
