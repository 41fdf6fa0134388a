"""The requests that ask the backbone or the index, as values; no I/O but reading image files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from vlibrary_client.answers import Answer
from vlibrary_client.arguments import (
    Demonstrations,
    SteerOptions,
    VectorChoice,
    VectorUse,
    dataset_text,
    vector_text,
)
from vlibrary_client.calls import Call
from vlibrary_client.images import ImageSource, image_text
from vlibrary_client.replies import json_reader
from vlibrary_client.types import Readiness, Retrieval, VectorName

_READ_ANSWER = json_reader(Answer)
_READ_READINESS = json_reader(Readiness)
_READ_RETRIEVAL = json_reader(Retrieval)


def retrieve(
    *,
    image: ImageSource | None = None,
    text: str | None = None,
    embedding: Sequence[float] | None = None,
    k: int = 5,
    backbone: str | None = None,
    min_epoch: int | None = None,
    include_collapsed: bool = False,
) -> Call[Retrieval]:
    """Looks for vectors that fit an image, a text, both, or a ready embedding."""
    return Call(
        method="POST",
        path="/retrieve",
        read=_READ_RETRIEVAL,
        is_repeatable=True,
        body={
            "image": None if image is None else image_text(image),
            "text": text,
            "embedding": None if embedding is None else [float(value) for value in embedding],
            "k": k,
            "backbone": backbone,
            "min_epoch": min_epoch,
            "include_collapsed": include_collapsed,
        },
    )


def _vector_json(vector: VectorChoice) -> Any:  # noqa: ANN401 - JSON of one of four shapes
    if vector is None:
        return None
    if isinstance(vector, VectorUse):
        return {"ref": vector_text(vector.ref), "strength": vector.strength}
    if isinstance(vector, (str, UUID, VectorName)):
        return vector_text(vector)
    return [_vector_json(item) for item in vector]


def _demonstrations_json(demonstrations: Demonstrations | None) -> dict[str, Any] | None:
    if demonstrations is None:
        return None
    return {
        "dataset": dataset_text(demonstrations.dataset),
        "shots": demonstrations.shots,
        "selection": demonstrations.selection,
        "seed": demonstrations.seed,
    }


def generate(
    prompt: str, options: SteerOptions, *, timeout_seconds: float | None = None
) -> Call[Answer]:
    """Answers a prompt, steered by the vectors chosen.

    Raises:
        TypeError: There is no such option.
    """
    unknown = sorted(set(options) - set(SteerOptions.__annotations__))
    if unknown:
        raise TypeError(f"there is no option {', '.join(unknown)}")
    body: dict[str, Any] = {"prompt": prompt, **options}
    for name, convert in _CONVERTED.items():
        if name in body:
            body[name] = convert(body[name])
    return Call(
        method="POST",
        path="/steer/generate",
        read=_READ_ANSWER,
        is_repeatable=True,
        body=body,
        timeout_seconds=timeout_seconds,
    )


# Options that look otherwise on the wire.
_CONVERTED: Mapping[str, Callable[[Any], Any]] = {
    "images": lambda images: [image_text(image) for image in images],
    "vector": _vector_json,
    "demonstrations": _demonstrations_json,
    "stop": list,
}


def stream(
    prompt: str, options: SteerOptions, *, timeout_seconds: float | None = None
) -> Call[Answer]:
    """As `generate`, with the answer as events; the timeout is for the silence between two."""
    call = generate(prompt, options, timeout_seconds=timeout_seconds)
    body = {**(call.body or {}), "stream": True}
    return replace(call, body=body, headers={"accept": "text/event-stream"})


def ready() -> Call[Readiness]:
    """Whether the service can take requests; an unready service is an answer, not an error."""
    return Call(
        method="GET",
        path="/readyz",
        read=_READ_READINESS,
        is_repeatable=False,
        answer_statuses=frozenset({503}),
    )
