"""Types of request fields, each with its bounds, so that they stand in the OpenAPI schema.

Numbers are strict (no text, no Booleans) and finite. Text can be stored and sent back: it has no
NUL and no lone surrogate.
"""

from typing import Annotated, Final, TypeAlias

from fastapi import Path
from pydantic import AfterValidator, Field, StringConstraints

from app.core.identifiers import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    MAX_VERSION,
    NAME_PATTERN,
)
from app.rpc.generation import SAFE

MAX_PROMPT_CHARACTERS: Final = 32_768
MAX_IMAGE_CHARACTERS: Final = 48 * 1024 * 1024
MAX_REFERENCE_CHARACTERS: Final = 201
MAX_BACKBONE_CHARACTERS: Final = 400
MAX_EMBEDDING_LENGTH: Final = 65_536
MAX_EMBEDDING_VALUE: Final = 1e6
MAX_VECTORS: Final = 8
DATA_PREFIX: Final = "data:"


def is_data_url(text: str) -> bool:
    """Whether the text holds what it names."""
    return text[: len(DATA_PREFIX)].lower() == DATA_PREFIX


SafeStr: TypeAlias = Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION_CHARACTERS), SAFE]
Description: TypeAlias = SafeStr
SearchedWords: TypeAlias = Annotated[
    SafeStr,
    Field(max_length=500, description="Words that occur in the name, description or tags."),
]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=100)]
Tag: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_TAG_CHARACTERS), SAFE
]
Tags: TypeAlias = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
Preference: TypeAlias = Annotated[
    Tag,
    Field(
        description="Tag, alias or name of the vector that is meant where several stand for the "
        "same questions; the server's own when not given."
    ),
]
OnlyReady: TypeAlias = Annotated[
    bool,
    Field(
        strict=True,
        description="Whether vectors stay hidden that are not shown to help: unproven, "
        "ineffective and collapsed ones.",
    ),
]
Prompt: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_PROMPT_CHARACTERS), SAFE
]
Reference: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_REFERENCE_CHARACTERS), SAFE
]
Ref: TypeAlias = Annotated[
    Reference, Path(description="An id, `name`, `name@version` or `name@alias`.")
]
ColumnPair: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[a-z_]+=.+$", max_length=300), SAFE
]


def _named_once(pairs: list[str]) -> list[str]:
    if len({pair.partition("=")[0] for pair in pairs}) < len(pairs):
        raise ValueError("a name is mapped twice")
    return pairs


ColumnPairs: TypeAlias = Annotated[
    list[ColumnPair], Field(max_length=10), AfterValidator(_named_once)
]
SplitName: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500),
    SAFE,
    Field(
        description="Which part of the data set, in any case; needed where it has several and none "
        "of them is called train."
    ),
]
BackboneRef: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_BACKBONE_CHARACTERS),
    SAFE,
    Field(
        description="Its name or fingerprint; needed where several are served and no vector "
        "tells which is meant."
    ),
]
Fingerprint: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ImageText: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_IMAGE_CHARACTERS),
    Field(description="A PNG, JPEG or WEBP file as base64 text or a base64 data: URL."),
]
Cursor: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    SAFE,
    Field(description="The `next_cursor` of the page before."),
]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=200)]
Version: TypeAlias = Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True)]
EmbeddingValue: TypeAlias = Annotated[
    float,
    Field(ge=-MAX_EMBEDDING_VALUE, le=MAX_EMBEDDING_VALUE, strict=True),
]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
