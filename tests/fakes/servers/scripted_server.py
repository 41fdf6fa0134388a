"""A server that answers from a script, for clients that never leave the process."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

Scripted = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


@dataclass
class ScriptedServer:
    """Gives the answers in order, the last one for ever, and remembers what it was asked."""

    answers: list[Scripted]
    requests: list[httpx.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def _next(self, request: httpx.Request, body: bytes) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    def json(self, index: int = -1) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.bodies[index])
        return body

    @property
    def transport(self) -> httpx.BaseTransport:
        return httpx.MockTransport(lambda request: self._next(request, request.read()))

    @property
    def async_transport(self) -> httpx.AsyncBaseTransport:
        async def handle(request: httpx.Request) -> httpx.Response:
            return self._next(request, await request.aread())

        return httpx.MockTransport(handle)


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that arrives piece by piece and may break off."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    body: Mapping[str, Any] = {
        "type": f"urn:vlibrary:error:{code}",
        "title": "t",
        "status": status,
        "detail": f"what {code} means",
        "code": code,
        "request_id": "r-1",
        "errors": [{"location": "body.k", "message": "too big"}],
        "details": {"wanted": "a", "found": "b"},
    }
    return httpx.Response(status, json=body, headers=headers)


VECTOR_ID = "01234567-0123-7123-8123-0123456789ab"
JOB_ID = "11234567-0123-7123-8123-0123456789ab"
DATASET_ID = "21234567-0123-7123-8123-0123456789ab"
TIME = "2025-11-23T01:02:03Z"


def dataset_json(**changes: object) -> dict[str, Any]:
    return {
        "id": DATASET_ID,
        "name": "colours",
        "description": "",
        "sha256": "ab" * 32,
        "size_bytes": 10,
        "num_items": 2,
        "num_images": 1,
        "created": TIME,
        **changes,
    }


def vector_json(**changes: object) -> dict[str, Any]:
    return {
        "id": VECTOR_ID,
        "name": "colours",
        "version": 3,
        "sha256": "cd" * 32,
        "size_bytes": 100,
        "backbone": {
            "fingerprint": "ef" * 32,
            "name": "pocket",
            "architecture": "Idefics3ForConditionalGeneration",
            "num_layers": 2,
            "hidden_size": 8,
            "a_newer_field": 1,
        },
        "method": "m2iv",
        "shots": 16,
        "dataset_sha256": None,
        "job_id": JOB_ID,
        "parents": [],
        "hyper_parameters": {"epochs": 2},
        "seed": 0,
        "library_versions": {"torch": "2.13.0"},
        "norms": {},
        "status": "ready",
        "description": "",
        "tags": ["x"],
        "aliases": ["latest"],
        "created": TIME,
        **changes,
    }


def job_json(state: str = "queued", **changes: object) -> dict[str, Any]:
    return {
        "id": JOB_ID,
        "state": state,
        "name": "colours",
        "dataset_id": DATASET_ID,
        "config": {"shots": 16},
        "progress": None,
        "vector": {"id": VECTOR_ID, "name": "colours", "version": 3, "status": "ready"}
        if state == "succeeded"
        else None,
        "error": None,
        "attempts": 1,
        "created": TIME,
        "started": None,
        "finished": None,
        "seconds": None,
        **changes,
    }


def answer_json(**changes: object) -> dict[str, Any]:
    return {
        "id": "r-1",
        "text": "red",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
        "applied": [
            {
                "id": VECTOR_ID,
                "name": "colours",
                "version": 3,
                "status": "unproven",
                "sha256": "cd" * 32,
                "strength": 1.0,
                "source": "request",
            }
        ],
        "receipt": {
            "sites_hit": 4,
            "sites_expected": 4,
            "num_forwards": 2,
            "kl_first_token": 0.5,
        },
        "retrieval": None,
        "baseline": {
            "text": "blue",
            "finish_reason": "length",
            "usage": {"prompt_tokens": 9, "completion_tokens": 2},
        },
        "logprobs": None,
        "timings": {"queue_ms": 1, "prefill_ms": 2, "decode_ms": 3, "total_ms": 6},
        "backbone": {"fingerprint": "ef" * 32, "name": "pocket"},
        **changes,
    }
