"""What workers answer: whole answers of whatever generates in pieces, and how each of them is."""

import asyncio

from app.rpc.client import WorkerClient
from app.rpc.generation import GenerateResponse
from app.rpc.messages import GenerateRequest, HealthResponse
from app.rpc.pool import WorkerPool
from app.worker.serving.service import Serving


async def answer_of(
    source: WorkerClient | Serving, request: GenerateRequest, *, fingerprint: str | None = None
) -> GenerateResponse:
    """The last piece, which is the answer in full; others come only where the request streams."""
    pieces = (
        source.generate(request, backbone_fingerprint=fingerprint)
        if isinstance(source, WorkerClient)
        else source.generate(request)
    )
    *deltas, answer = [piece async for piece in pieces]
    assert bool(deltas) <= request.stream
    assert isinstance(answer, GenerateResponse)
    return answer


async def health_of(pool: WorkerPool) -> tuple[HealthResponse, ...]:
    """What the workers of a pool say that answer now."""
    await asyncio.gather(*(pool._ask(worker) for worker in pool.all))
    return tuple(worker.health for worker in pool.all if worker.health is not None)
