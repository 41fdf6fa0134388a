"""What a vector file says of itself beside its numbers: where it is found, how it did, whence.

It travels as one JSON text in the file's metadata, so a file that leaves a library and enters
another is found there as it was.
"""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.errors import InvalidVectorFileError
from app.core.states import TrainedStatus
from app.core.vectors.tensors import Float32Array

METADATA_KEY: Final = "card"
MAX_KEYS: Final = 64
MAX_DIMENSION: Final = 16_384
MAX_SHOTS: Final = 2**31 - 1
_DTYPE: Final = np.dtype("<f4")

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Cosine: TypeAlias = Annotated[float, Field(ge=-1, le=1)]
Length: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]
# What a text of the database cannot hold.
_NO_NUL: Final = r"^[^\x00]*$"


class _Card(BaseModel):
    # What a newer version adds is no reason to refuse a file.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class KeyCard(_Card):
    """The keys by which `auto` finds the vectors.

    Attributes:
        space: Identity of the encoder.
        dimension: Length of a row.
        rows: Little-endian float32, one row after the other, in Base64.
        threshold: Least cosine of the picture, or of the whole row.
        text_threshold: Least cosine of the question, for rows of two parts.
        image_width: Numbers of a row that belong to the picture, for rows of two parts.
    """

    space: Annotated[str, Field(pattern=r"^[ -~]{1,200}$")]
    dimension: Annotated[int, Field(ge=1, le=MAX_DIMENSION)]
    rows: str
    threshold: Cosine
    text_threshold: Cosine | None = None
    image_width: Annotated[int, Field(ge=1, le=MAX_DIMENSION)] | None = None

    @classmethod
    def of(cls, rows: Float32Array, **others: Any) -> "KeyCard":  # noqa: ANN401 - the fields
        """The card of these rows, `[keys, dimension]`."""
        text = base64.b64encode(rows.astype(_DTYPE).tobytes()).decode()
        return cls(rows=text, dimension=rows.shape[1], **others)

    def matrix(self) -> Float32Array:
        """`[keys, dimension]`.

        Raises:
            InvalidVectorFileError: The rows are no whole, finite rows, or too many.
        """
        try:
            numbers = np.frombuffer(base64.b64decode(self.rows, validate=True), dtype=_DTYPE)
            rows = numbers.reshape(-1, self.dimension)
        except ValueError:
            raise InvalidVectorFileError("Not a vector file: its keys cannot be read") from None
        if not 1 <= len(rows) <= MAX_KEYS or not np.isfinite(rows).all():
            raise InvalidVectorFileError(
                f"Not a vector file: wanted 1 to {MAX_KEYS} finite keys, found {len(rows)}"
            )
        return rows.astype(np.float32)


class EvaluationCard(_Card):
    """How the vectors did on held-out items; shares of right answers."""

    dataset: Annotated[str, Field(max_length=200, pattern=_NO_NUL)]
    # As long as that of a job.
    split: Annotated[str, Field(max_length=500, pattern=_NO_NUL)]
    scorer: Annotated[str, Field(max_length=200, pattern=_NO_NUL)]
    items: Annotated[int, Field(ge=1, le=2**31 - 1)]
    accuracy: Share
    low: Share
    high: Share
    zero_shot: Share | None = None
    icl: Share | None = None
    knn_icl: Share | None = None


class VectorCard(_Card):
    """All that a file says of its vectors beside the numbers.

    `dose` and `max_dose` are given where they were measured; without a `key` `auto` cannot find
    them.
    """

    status: TrainedStatus = "unproven"
    shots: Annotated[int, Field(ge=0, le=MAX_SHOTS)] = 0
    seed: Count = 0
    dose: Length | None = None
    max_dose: Length | None = None
    dataset_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    hyper_parameters: dict[str, Any] = Field(default_factory=dict)
    library_versions: dict[str, str] = Field(default_factory=dict)
    key: KeyCard | None = None
    evaluations: Annotated[tuple[EvaluationCard, ...], Field(max_length=100)] = ()

    def to_metadata(self) -> dict[str, str]:
        """As `encode_vector_file` takes it."""
        return {METADATA_KEY: self.model_dump_json(exclude_none=True)}


def read_card(metadata: Mapping[str, str]) -> VectorCard | None:
    """What a file says of itself, or None when it says nothing.

    Raises:
        InvalidVectorFileError: It says something that cannot be.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        card = VectorCard.model_validate_json(text)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "whole"
        raise InvalidVectorFileError(f"Not a vector file: its card is wrong at {place}") from None
    if card.key is not None:
        card.key.matrix()
    return card
