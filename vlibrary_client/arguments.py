"""What callers may pass to say which data set, which vector, which demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict
from uuid import UUID

from vlibrary_client.images import ImageSource
from vlibrary_client.types import Dataset, VectorName

Selection: TypeAlias = Literal["random", "nearest"]
VectorRef: TypeAlias = str | UUID | VectorName
DatasetRef: TypeAlias = str | UUID | Dataset


@dataclass(frozen=True, slots=True)
class VectorUse:
    """A vector and how strongly to apply it, for `client.steer.generate`.

    `ref` is a name, `name@version`, `name@alias`, an id, or a result that names a vector.
    """

    ref: VectorRef
    strength: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """Items of a stored data set to put before the question instead of, or with, a vector.

    `dataset` is its id, its name, or the `Dataset` itself.
    """

    dataset: DatasetRef
    shots: int = 16
    selection: Selection = "random"
    seed: int = 0


VectorChoice: TypeAlias = VectorRef | VectorUse | Sequence[VectorRef | VectorUse] | None


class SteerOptions(TypedDict, total=False):
    """What `client.steer.stream` takes; described at `client.steer.generate`."""

    images: Sequence[ImageSource]
    vector: VectorChoice
    strength: float
    demonstrations: Demonstrations | None
    instruction: str | None
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logprobs: int | None
    seed: int
    stop: Sequence[str]
    baseline: bool


def vector_text(ref: VectorRef) -> str:
    """A vector reference as the api spells it: exactly one version for a result."""
    return str(ref.id) if isinstance(ref, VectorName) else str(ref)


def dataset_text(dataset: DatasetRef) -> str:
    """A data set reference as the api spells it."""
    return str(dataset.id) if isinstance(dataset, Dataset) else str(dataset)
