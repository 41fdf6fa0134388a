"""The whole answer of whatever generates in pieces: a worker's serving, or its client."""

from app.rpc.client import WorkerClient
from app.rpc.generation import GenerateResponse
from app.rpc.messages import GenerateRequest
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
