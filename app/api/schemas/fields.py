"""Types of request fields, each with its bounds, so that they stand in the OpenAPI schema.

Numbers are strict (no text, no Booleans) and finite. Text can be stored and sent back: it has no
NUL and no lone surrogate.
"""

from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints

from app.core.identifiers import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    MAX_VERSION,
    NAME_PATTERN,
)

MAX_PROMPT_CHARACTERS: Final = 32_768
MAX_IMAGE_CHARACTERS: Final = 48 * 1024 * 1024
MAX_REFERENCE_CHARACTERS: Final = 201
MAX_BACKBONE_CHARACTERS: Final = 400
MAX_EMBEDDING_LENGTH: Final = 65_536
MAX_EMBEDDING_VALUE: Final = 1e6
MAX_SEED: Final = 2**63 - 1
MAX_STRENGTH: Final = 10.0
MAX_VECTORS: Final = 8
MAX_TOKENS: Final = 8_192
MAX_TOP_LOGPROBS: Final = 20
MAX_STOPS: Final = 16
DATA_PREFIX: Final = "data:"


def is_data_url(text: str) -> bool:
    """Whether the text holds what it names."""
    return text[: len(DATA_PREFIX)].lower() == DATA_PREFIX


def refuse_unstorable(text: str) -> str:
    """The text itself when it can be stored in a database and written as UTF-8."""
    if "\0" in text:
        raise ValueError("the text has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text has a lone surrogate") from None
    return text


_SAFE: Final = AfterValidator(refuse_unstorable)

SafeStr: TypeAlias = Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION_CHARACTERS), _SAFE]
Description: TypeAlias = SafeStr
Name: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=100)]
Tag: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_TAG_CHARACTERS), _SAFE
]
Tags: TypeAlias = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
Prompt: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_PROMPT_CHARACTERS), _SAFE
]
Reference: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_REFERENCE_CHARACTERS), _SAFE
]
BackboneRef: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_BACKBONE_CHARACTERS),
    _SAFE,
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
StopText: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=64), _SAFE]
Cursor: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=512), _SAFE]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=200)]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)]
Strength: TypeAlias = Annotated[
    float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False, strict=True)
]
Version: TypeAlias = Annotated[int, Field(ge=1, le=MAX_VERSION, strict=True)]
EmbeddingValue: TypeAlias = Annotated[
    float,
    Field(ge=-MAX_EMBEDDING_VALUE, le=MAX_EMBEDDING_VALUE, allow_inf_nan=False, strict=True),
]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
TokenCount: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TOKENS, strict=True)]
Temperature: TypeAlias = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False, strict=True)]
TopP: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
TopK: TypeAlias = Annotated[
    int, Field(ge=0, le=1_000_000, strict=True, description="0 samples from all tokens.")
]
Penalty: TypeAlias = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False, strict=True)]
RepetitionPenalty: TypeAlias = Annotated[
    float, Field(ge=0.01, le=10, allow_inf_nan=False, strict=True)
]
TopLogprobs: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS, strict=True)]
