"""Requests about the library as a whole, as values; nothing is sent here.

The methods of the sync and the async client are made of these functions, documentation included.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

from vlibrary_client.answers import Batch, CombinedVector, Compared
from vlibrary_client.calls.arguments import VectorRef, listed, present, segment, vector_text
from vlibrary_client.types import Alias, Evaluation, Page, Vector, VectorStatus
from vlibrary_client.wire.replies import Call, fetched, posted, read_nothing


class VectorFilters(TypedDict, total=False):
    """What vectors are listed; all of what is given must hold.

    Attributes:
        name: Versions of this name.
        text: Words of which each occurs in the name, the description or a tag, in any case.
        tag: Has this tag, or all of these.
        alias: An alias of this name, such as `prod`, points at it.
        backbone: Made for the backbone of this fingerprint.
        status: In this state.
        method: Made by this method, such as `m2iv`.
        dataset: Trained on the data set of this SHA-256.
        job_id: Made by this job.
        parent: Combined from the vector of this id.
        created_after: Stored at or after this moment, which has an offset from UTC.
        created_before: Stored before it.
        min_accuracy: Its newest measurement has at least this share of right answers.
        min_gain: Its newest measurement is at least so far above zero-shot.
    """

    name: str | None
    text: str | None
    tag: str | Sequence[str] | None
    alias: str | None
    backbone: str | None
    status: VectorStatus | None
    method: str | None
    dataset: str | None
    job_id: UUID | None
    parent: UUID | None
    created_after: datetime | None
    created_before: datetime | None
    min_accuracy: float | None
    min_gain: float | None


def _text(value: Any) -> Any:  # noqa: ANN401 - what httpx takes
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID | float) else value


def list_vectors(
    *, limit: int = 50, cursor: str | None = None, **filters: Unpack[VectorFilters]
) -> Call[Page[Vector]]:
    """One page of the vectors that match every filter given, newest first.

    A cursor goes on with the listing that it came from, so the filters must be the same.
    """
    parameters = {name: _text(value) for name, value in filters.items()}
    return fetched("/vectors", Page[Vector], present(**parameters, cursor=cursor, limit=limit))


def _change(action: str, vectors: Sequence[VectorRef], **values: object) -> Call[Batch]:
    return posted(
        "/vectors/batch",
        Batch,
        {
            "action": action,
            "vectors": [vector_text(ref) for ref in listed(vectors, "vectors")],
            **values,
        },
    )


def delete_vectors(vectors: Sequence[VectorRef]) -> Call[Batch]:
    """Deletes up to 200 vectors; a refusal of one stops no other.

    Raises:
        InvalidInputError: There are none, or too many.
    """
    return _change("delete", vectors)


def change_tags(
    vectors: Sequence[VectorRef], tags: Sequence[str], *, action: Literal["tag", "untag"] = "tag"
) -> Call[Batch]:
    """Gives up to 200 vectors further tags, or takes tags away; all others stay.

    Raises:
        InvalidInputError: There are no vectors or tags, or too many.
    """
    return _change(action, vectors, tags=listed(tags, "tags"))


def change_status(vectors: Sequence[VectorRef], status: VectorStatus) -> Call[Batch]:
    """Puts up to 200 vectors into a state.

    Raises:
        InvalidInputError: There are none, or too many.
    """
    return _change("set-status", vectors, status=status)


def compare_vectors(vectors: Sequence[VectorRef]) -> Call[Compared]:
    """Two to eight vectors beside each other: measurements on equal terms, and how alike they are.

    Raises:
        NotFoundError: One of them does not exist.
        InvalidInputError: One is given twice, or there are too few or too many.
    """
    refs = [vector_text(ref) for ref in listed(vectors, "vectors")]
    return fetched("/vectors/compare", Compared, {"ref": refs})


def combine_vectors(
    name: str,
    parts: Mapping[str, float] | Mapping[VectorRef, float] | Sequence[VectorRef],
    *,
    description: str = "",
    tags: Sequence[str] = (),
) -> Call[CombinedVector]:
    """Stores the weighted sum of vectors as the next version of `name`; nothing is measured of it.

    The same sum again is the same version.

    Args:
        name: What the sum is called.
        parts: Vectors with their weights, or vectors whose mean is meant.
        description: Text for people.
        tags: For filters.

    Raises:
        NotFoundError: A part does not exist.
        IncompatibleBackboneError: The parts were made for different backbones.
        InvalidInputError: There are too few or too many, one is given twice, or they cancel.
    """
    weighted: Iterable[tuple[VectorRef, float]]
    if isinstance(parts, Mapping):
        weighted = tuple(parts.items())
    else:
        refs = listed(parts, "vectors")
        weighted = tuple((ref, 1 / len(refs)) for ref in refs)
    return posted(
        "/vectors/combine",
        CombinedVector,
        {
            "name": name,
            "parts": [
                {"vector": vector_text(ref), "weight": float(weight)} for ref, weight in weighted
            ],
            "description": description,
            "tags": listed(tags, "tags"),
        },
    )


def prune_versions(name: str, *, keep_last: int) -> Call[Page[Vector]]:
    """Deletes all but the newest versions of `name`; what an alias points at stays as well.

    The page has what was deleted, newest first.

    Raises:
        NotFoundError: Nothing was ever stored under the name.
    """
    return posted(f"/vectors/{segment(name)}/prune", Page[Vector], {"keep_last": keep_last})


def add_evaluation(
    ref: VectorRef,
    *,
    dataset: str,
    split: str,
    scorer: str,
    items: int,
    accuracy: float,
    interval: tuple[float, float],
    zero_shot: float | None = None,
    icl: float | None = None,
    knn_icl: float | None = None,
) -> Call[Evaluation]:
    """Attaches a measurement that was made elsewhere; accuracies are shares from 0 to 1.

    Args:
        ref: What was measured.
        dataset: On which data.
        split: On which part of it.
        scorer: By which metric.
        items: How many questions.
        accuracy: With the vector.
        interval: Both ends of its 95 % interval.
        zero_shot: Without vector and demonstrations.
        icl: With random demonstrations.
        knn_icl: With the nearest demonstrations.

    Raises:
        NotFoundError: There is no such vector.
        InvalidInputError: A share is out of order or out of range.
    """
    low, high = interval
    return posted(
        f"/vectors/{segment(vector_text(ref))}/evaluations",
        Evaluation,
        {
            "dataset": dataset,
            "split": split,
            "scorer": scorer,
            "items": items,
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "zero_shot": zero_shot,
            "icl": icl,
            "knn_icl": knn_icl,
        },
    )


def list_aliases(name: str) -> Call[Page[Alias]]:
    """Every alias of a name, `latest` among them.

    Raises:
        NotFoundError: There are no vectors of the name.
    """
    return fetched(f"/vectors/{segment(name)}/aliases", Page[Alias])


def delete_alias(name: str, alias: str, *, expected_version: int | None = None) -> Call[None]:
    """Takes an alias away; the version that it points at stays.

    `expected_version` is where it must point now for that to happen, from 1 on.

    Raises:
        InvalidInputError: No alias can point there.
        NotFoundError: There is no such alias.
        ConflictError: It points elsewhere than expected.
    """
    return Call(
        method="DELETE",
        path=f"/vectors/{segment(name)}/aliases/{segment(alias)}",
        read=read_nothing,
        is_repeatable=False,
        query=present(expected_version=expected_version),
    )
