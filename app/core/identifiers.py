"""Names and ids: time-ordered ids, references to vectors, content digests."""

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from app.core.errors import InvalidInputError

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,99}$"
LATEST: Final = "latest"
# In place of a reference: whichever vector is found.
AUTO: Final = "auto"
MAX_VERSION: Final = 2**31 - 1
MAX_TAGS: Final = 32
MAX_TAG_CHARACTERS: Final = 100
MAX_DESCRIPTION_CHARACTERS: Final = 10_000

_NAME: Final = re.compile(NAME_PATTERN.removesuffix("$"))
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,9}")


def new_id() -> uuid.UUID:
    """A fresh UUIDv7 that sorts after every id made earlier in this process.

    The twelve bits below the millisecond hold its fraction, which keeps ids made in the same
    millisecond in order down to about 250 ns.

    Source: RFC 9562, sections 5.7 and 6.2 (method 3).
    """
    milliseconds, rest_ns = divmod(time.time_ns(), 1_000_000)
    fraction = (rest_ns << 12) // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    return uuid.UUID(int=value)


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """The SHA-256 digest of the bytes as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """The SHA-256 digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_id(text: str) -> bool:
    """Whether a text reads as an id, which no name does."""
    return _UUID.fullmatch(text.lower()) is not None


def check_name(name: str, *, what: str = "name") -> str:
    """The name itself when it is one.

    Raises:
        InvalidInputError: It does not match `NAME_PATTERN`, or reads as an id.
    """
    if not _NAME.fullmatch(name) or is_id(name):
        message = (
            f"The {what} must have 1 to 100 of a-z, 0-9, '.', '_', '-', start with a letter or "
            "digit, and be no UUID"
        )
        raise InvalidInputError(message, details={"pattern": NAME_PATTERN})
    return name


def check_vector_name(name: str) -> str:
    """The name itself when vectors may be stored under it.

    Raises:
        InvalidInputError: It is no name, or asks for whichever vector is found.
    """
    if check_name(name) == AUTO:
        raise InvalidInputError(f"The name {AUTO} asks for a vector to be found; take another")
    return name


def check_alias(alias: str) -> str:
    """The alias itself when it is one.

    Raises:
        InvalidInputError: It is no name, or only digits, which would read as a version.
    """
    check_name(alias, what="alias")
    if alias.isdigit():
        raise InvalidInputError("An alias needs a character that is no digit")
    return alias


def check_description(text: str) -> str:
    """The text itself when it can be stored.

    Raises:
        InvalidInputError: It is too long, or has a NUL or a lone surrogate.
    """
    if len(text) > MAX_DESCRIPTION_CHARACTERS:
        raise InvalidInputError(
            f"A description has at most {MAX_DESCRIPTION_CHARACTERS} characters, found {len(text)}"
        )
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInputError("A description has no NUL and no lone surrogate")
    return text


def check_tags(tags: Iterable[str]) -> list[str]:
    """The tags once each and sorted.

    Raises:
        InvalidInputError: There are too many, or one is empty, too long or not printable.
    """
    unique = sorted(set(tags))
    if len(unique) > MAX_TAGS:
        raise InvalidInputError(f"At most {MAX_TAGS} tags, found {len(unique)}")
    if not all(tag.isprintable() and 0 < len(tag) <= MAX_TAG_CHARACTERS for tag in unique):
        raise InvalidInputError(f"A tag has 1 to {MAX_TAG_CHARACTERS} printable characters")
    return unique


@dataclass(frozen=True, kw_only=True)
class VectorReference:
    """How a caller points at one set of vectors: by id, or by name with a version or an alias.

    Exactly one of `id` and `name` is set. A name with neither version nor alias means its newest
    version.
    """

    id: uuid.UUID | None = None
    name: str | None = None
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference written as `name`, `name@3`, `name@alias` or a UUID.

        Raises:
            InvalidInputError: The text is none of the four.
        """
        if is_id(text):
            return cls(id=uuid.UUID(text))
        name, at, rest = text.partition("@")
        check_name(name, what="vector reference")
        if not at:
            return cls(name=name)
        if not (rest.isascii() and rest.isdigit()):
            return cls(name=name, alias=check_alias(rest))
        if not _VERSION.fullmatch(rest) or (version := int(rest)) > MAX_VERSION:
            raise InvalidInputError(f"Wanted a version of 1 to {MAX_VERSION}, found {rest[:20]}")
        return cls(name=name, version=version)

    def __str__(self) -> str:
        """The text that `parse` reads back."""
        if self.id is not None:
            return str(self.id)
        suffix = self.alias if self.version is None else self.version
        return f"{self.name}" if suffix is None else f"{self.name}@{suffix}"
