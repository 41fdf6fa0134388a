"""Requests that make the backbone work, to find and to answer, as values.

Nothing is sent here, and no file read but images. As in `requests`, methods are made of these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Unpack
from uuid import UUID

from vlibrary_client.answers import Answer
from vlibrary_client.calls.arguments import (
    Demonstrations,
    SteerOptions,
    VectorChoice,
    VectorUse,
    dataset_text,
    listed,
    present,
    vector_text,
)
from vlibrary_client.images import ImageSource, image_text
from vlibrary_client.types import Readiness, Retrieval, VectorName
from vlibrary_client.wire.replies import Call, json_reader


def retrieve(
    *,
    image: ImageSource | None = None,
    text: str | None = None,
    embedding: Sequence[float] | None = None,
    k: int = 5,
    backbone: str | None = None,
    min_epoch: int | None = None,
    prefer: str | None = None,
    only_ready: bool = True,
    name: str | None = None,
    tags: Sequence[str] = (),
    words: str | None = None,
) -> Call[Retrieval]:
    """Vectors that fit a query, best first; it abstains when none fits.

    Args:
        image: The query's image.
        text: The query's question.
        embedding: A ready embedding of the query instead of the two.
        k: How many vectors at most.
        backbone: Name or fingerprint of the one they belong to; needed where several are served.
        min_epoch: Wait until the index has seen this change.
        prefer: Tag, alias or name of the one that is meant where several stand for the same
            questions; the server's own when not given.
        only_ready: Leave out those that are unproven, ineffective or collapsed.
        name: Only versions of this name, as if nothing else were stored.
        tags: Only vectors that have all of these tags, likewise.
        words: Only vectors with each of these words in their name, description or a tag.

    Raises:
        InvalidInputError: Neither an image, a text nor an embedding is given.
        NotFoundError: Several fit alike, and nothing that is stored has what is preferred.
    """
    return Call(
        method="POST",
        path="/retrieve",
        read=json_reader(Retrieval),
        body={
            "image": None if image is None else image_text(image),
            "text": text,
            "embedding": None if embedding is None else [float(value) for value in embedding],
            "k": k,
            "backbone": backbone,
            "min_epoch": min_epoch,
            "prefer": prefer,
            "only_ready": only_ready,
            **present(name=name, tags=listed(tags, "tags") if tags else None, words=words),
        },
    )


def _vector_json(vector: VectorChoice) -> Any:  # noqa: ANN401 - JSON of one of four shapes
    if vector is None:
        return None
    if isinstance(vector, VectorUse):
        return {"ref": vector_text(vector.ref), "strength": vector.strength}
    if isinstance(vector, (str, UUID, VectorName)):
        return vector_text(vector)
    return [_vector_json(item) for item in listed(vector, "vectors")]


def _demonstrations_json(demonstrations: Demonstrations | None) -> dict[str, Any] | None:
    if demonstrations is None:
        return None
    return {**asdict(demonstrations), "dataset": dataset_text(demonstrations.dataset)}


def generate(
    prompt: str, *, timeout: float | None = None, **options: Unpack[SteerOptions]
) -> Call[Answer]:
    """The answer to a prompt.

    Args:
        prompt: The question.
        timeout: How long to wait, in seconds.
        **options: Images, vectors and settings; see `SteerOptions`.

    Raises:
        NotFoundError: There is no such vector.
        IncompatibleBackboneError: The vector belongs to another backbone.
        SteeringError: The vector could not be shown to have been applied.
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
        read=json_reader(Answer),
        body=body,
        timeout_seconds=timeout,
    )


# Options that look otherwise on the wire.
_CONVERTED: Mapping[str, Callable[[Any], Any]] = {
    "images": lambda images: [image_text(image) for image in listed(images, "images")],
    "vector": _vector_json,
    "demonstrations": _demonstrations_json,
    "stop": lambda stop: listed(stop, "texts that end an answer"),
}


def stream(
    prompt: str, *, timeout: float | None = None, **options: Unpack[SteerOptions]
) -> Call[Answer]:
    """As `generate`, with the answer as events; the timeout is for the silence between two."""
    call = generate(prompt, timeout=timeout, **options)
    body = {**(call.body or {}), "stream": True}
    return replace(call, body=body, headers={"accept": "text/event-stream"})


def ready() -> Call[Readiness]:
    """Whether the service can take requests, part by part; being unready is no error.

    Raises:
        ConnectionFailedError: It does not answer at all.
    """
    return Call(
        path="/readyz",
        read=json_reader(Readiness),
        is_repeatable=False,
        answer_statuses=frozenset({503}),
    )
