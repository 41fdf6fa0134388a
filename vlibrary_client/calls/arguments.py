"""What callers may pass to say which data set, which vector, which demonstrations."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar
from urllib.parse import quote
from uuid import UUID

from vlibrary_client.errors import InvalidInputError
from vlibrary_client.images import ImageSource
from vlibrary_client.types import Dataset, VectorName

T = TypeVar("T")

NAME = re.compile("[a-z0-9][a-z0-9._-]{0,99}")
_FIXED = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[^@]+@[0-9]+", re.IGNORECASE)

Selection: TypeAlias = Literal["random", "nearest", "balanced"]
VectorRef: TypeAlias = str | UUID | VectorName
DatasetRef: TypeAlias = str | UUID | Dataset
CombinationRule: TypeAlias = Literal["best", "mean", "weighted", "learned"]
EvaluationMethod: TypeAlias = Literal[
    "m2iv", "zero_shot", "majority", "icl", "icl_balanced", "knn_icl", "nearest_copy"
]


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

    `dataset` is its id, its name, or the `Dataset` itself. `selection` takes random items, the
    nearest in picture and question, or balanced ones: of as many different answers as possible.
    """

    dataset: DatasetRef
    shots: int = 16
    selection: Selection = "random"
    seed: int = 0
    split: str | None = None


VectorChoice: TypeAlias = VectorRef | VectorUse | Sequence[VectorRef | VectorUse] | None


class StructuredOutputs(TypedDict, total=False):
    """The form of an answer: one of these.

    Attributes:
        choice: The answer is one of these texts.
        regex: The whole answer matches.
        json: The answer is JSON of this schema, such as `Model.model_json_schema()`.
        json_object: The answer is a JSON object.
    """

    choice: Sequence[str]
    regex: str
    json: Mapping[str, Any] | str
    json_object: bool


class SteerOptions(TypedDict, total=False):
    """What `client.steer.generate` and `stream` take beside the prompt.

    What is not given is as the server has it, which is in brackets.

    Attributes:
        images: Pillow images, encoded bytes, paths or `data:` URLs.
        backbone: The name or fingerprint of the backbone that answers; needed where several are
            served and no vector tells.
        vector: What steers: a reference or result, a `VectorUse`, several of them, `"auto"` to
            retrieve one (the answer is unsteered when none fits), or `None`.
        strength: The factor of every vector that names none itself (1).
        prefer: With `"auto"`, the tag, alias or name of the vector that is meant where several
            stand for the same questions.
        only_ready: With `"auto"`, whether vectors stay hidden that are not shown to help (True).
        demonstrations: Items of a data set to put before the question.
        instruction: A text before everything else.
        max_tokens: The most tokens to generate (32).
        fits_context: Lower `max_tokens` to what there is room for instead of refusing (False).
        temperature: 0 takes the most probable token every time (0).
        top_p: Sample from the smallest set of tokens with this probability (1).
        top_k: Sample from this many tokens; 0 for all (0).
        min_p: Leave out tokens with less than this share of the likeliest one's probability (0).
        presence_penalty: Taken from the logits of tokens that were written (0).
        frequency_penalty: Taken from them once for every time a token was written (0).
        repetition_penalty: Above 1, repeated tokens become less probable (1).
        logprobs: Report every token's log-probability, and so many of the likeliest others.
        seed: Of the sampling (0).
        stop: Texts that end the answer.
        structured_outputs: The form that the answer shall have.
        baseline: Also answer without any vector, to compare (False).
    """

    images: Sequence[ImageSource]
    backbone: str | None
    vector: VectorChoice
    strength: float
    prefer: str | None
    only_ready: bool
    demonstrations: Demonstrations | None
    instruction: str | None
    max_tokens: int
    fits_context: bool
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logprobs: int | None
    seed: int
    stop: Sequence[str]
    structured_outputs: StructuredOutputs | None
    baseline: bool


def vector_text(ref: VectorRef) -> str:
    """A vector reference as the api spells it: exactly one version for a result."""
    return str(ref.id) if isinstance(ref, VectorName) else str(ref)


def is_fixed(ref: VectorRef) -> bool:
    """Whether it is the same version whenever it is looked up: by id, or `name@version`."""
    return _FIXED.fullmatch(vector_text(ref)) is not None


def dataset_text(dataset: DatasetRef) -> str:
    """A data set reference as the api spells it."""
    return str(dataset.id) if isinstance(dataset, Dataset) else str(dataset)


def require_name(name: str) -> None:
    """Returns when it is a name, for what takes long to send.

    Raises:
        InvalidInputError: It is none.
    """
    if not NAME.fullmatch(name):
        raise InvalidInputError(
            "wanted a name of at most 100 lower-case letters, digits, dots, dashes and underlines, "
            f"a letter or digit first, found {name[:100]!a}"
        )


def listed(values: Iterable[T], what: str) -> list[T]:
    """Several things as a list.

    Raises:
        InvalidInputError: It is a single one; a text would be taken letter by letter.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidInputError(f"wanted a list of {what}, found {type(values).__name__} alone")
    return list(values)


def present(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values of any kind
    """What is given, by name."""
    return {name: value for name, value in values.items() if value is not None}


def segment(text: str) -> str:
    """A text as one segment of a path.

    Raises:
        InvalidInputError: It would lead to another path, or is no Unicode.
    """
    try:
        if text.strip(".") == "":
            raise InvalidInputError(f"wanted a name, a reference or an id, found {text!r}")
        return quote(text, safe="@")
    except UnicodeEncodeError:
        raise InvalidInputError(f"wanted a name, a reference or an id, found {text!a}") from None
