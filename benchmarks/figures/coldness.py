"""P9: requests with vectors that are, or are not, on the device, beside rows that decode.

The worker's own parts in this process: its device thread, its vector cache and its serving; vector
files come from memory.
"""

import asyncio
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count, pairwise
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from app.core.identifiers import sha256_hex
from app.core.settings import Settings
from app.library.storage import ObjectStore
from app.method.backbone.loading import Backbone
from app.rpc.generation import GenerateResponse
from app.rpc.messages import GenerateRequest, VectorUse
from app.worker.assembly import serving_parts
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence as Row
from app.worker.serving.service import Serving
from benchmarks.harness import bar, model_conditions, percentile
from benchmarks.setting.backbones import without_end
from benchmarks.setting.requests import Asked, from_pixels, image_prompts, random_shifts, row_of
from benchmarks.setting.service import QUESTION, encoded_pictures, vector_file

NUM_SLOTS: Final = 64
NUM_PICTURES: Final = 8
ANSWER_TOKENS: Final = 2
BACKGROUND_TOKENS: Final = 256


@dataclass(kw_only=True)
class Phase:
    """What was measured while some requests were answered.

    Attributes:
        first_token_ms: Of each request.
        gaps_ms: Between the ends of two steps of the engine, each a token of the rows beside.
    """

    first_token_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)


def cold_figures(
    backbone: Backbone, *, num_rows: int, num_requests: int, num_rounds: int
) -> dict[str, Any]:
    """P9 and P9_others with what they are made of.

    Args:
        backbone: Who answers.
        num_rows: Rows of the engine; all but one decode beside the requests.
        num_requests: Requests a phase, one after the other.
        num_rounds: Rounds of a phase with cold and a phase with warm vectors.
    """
    found = asyncio.run(
        _phases(
            without_end(backbone),
            num_rows=num_rows,
            num_requests=num_requests,
            num_rounds=num_rounds,
        )
    )
    return {**figures_of(found), **model_conditions(backbone)}


def figures_of(phases: Mapping[str, Sequence[Phase]]) -> dict[str, Any]:
    """P9 and P9_others, each the median of the rounds.

    Args:
        phases: Under `cold`, `warm` and `alone` (no request at all), one a round.
    """
    waits = {
        name: [statistics.median(one.first_token_ms) for one in phases[name]]
        for name in ("cold", "warm")
    }
    steps = [statistics.median(one.gaps_ms) for one in phases["alone"]]
    extra = [
        (slow - fast) / step
        for slow, fast, step in zip(waits["cold"], waits["warm"], steps, strict=True)
    ]
    tails = {name: [percentile(one.gaps_ms, 0.95) for one in phases[name]] for name in phases}
    others = [over / under for over, under in zip(tails["cold"], tails["warm"], strict=True)]
    return {
        "P9": round(statistics.median(extra), 3),
        "P9_others": round(statistics.median(others), 3),
        "P9_first_token_median_ms": {
            name: round(statistics.median(values), 3) for name, values in waits.items()
        },
        "P9_step_median_ms": round(statistics.median(steps), 3),
        "P9_gap_p95_ms": {
            name: round(statistics.median(values), 3) for name, values in tails.items()
        },
    }


class _Files:
    """Vector files in memory, made when they are needed and never twice the same."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = asdict(backbone.description)
        self._seeds = count()
        self._files: dict[str, bytes] = {}

    def new(self) -> str:
        """The digest of a file nobody has asked for."""
        content = vector_file(self._backbone, seed=next(self._seeds))
        digest = sha256_hex(content)
        self._files[digest] = content
        return digest

    async def fetch(self, digest: str) -> bytes:
        """The file of that digest."""
        return self._files[digest]


async def _phases(
    backbone: Backbone, *, num_rows: int, num_requests: int, num_rounds: int
) -> dict[str, list[Phase]]:
    files = _Files(backbone)
    ends: list[float] = []
    found: dict[str, list[Phase]] = {"cold": [], "warm": [], "alone": []}
    settings = Settings(max_rows=num_rows, vector_cache_slots=NUM_SLOTS)
    objects = ObjectStore("memory:///")
    async with serving_parts(
        lambda: backbone, settings, fetch=files.fetch, objects=objects
    ) as parts:
        _watch(parts.engine, ends)
        asking = _Asking(parts.serving, files, ends)
        async with _background(backbone, parts.device, num_rows=num_rows - 1):
            await asking.phase("warm", num_requests=NUM_PICTURES)
            for index in bar(num_rounds, "P9"):
                names = list(found)
                for name in names if index % 2 == 0 else names[::-1]:
                    found[name].append(await asking.phase(name, num_requests=num_requests))
    return found


def _watch(engine: Engine, ends: list[float]) -> None:
    """Take down when each of the engine's steps ended."""
    step = engine.step

    def watched() -> Any:  # noqa: ANN401 - whatever a step returns
        finished = step()
        ends.append(monotonic())
        return finished

    engine.step = watched  # type: ignore[method-assign] # the seam has no place for a clock


class _Asking:
    """Sends requests one after the other."""

    def __init__(self, serving: Serving, files: _Files, ends: list[float]) -> None:
        self._serving = serving
        self._files = files
        self._ends = ends
        self._pictures = encoded_pictures(NUM_PICTURES)
        self._warm = files.new()

    async def phase(self, name: str, *, num_requests: int) -> Phase:
        """What was measured during one phase.

        Args:
            name: `cold` asks with a new vector each time, `warm` with one that is loaded, `alone`
                lets as many steps pass as there would be requests.
            num_requests: How many.
        """
        began = len(self._ends)
        figures = Phase()
        digests = [self._files.new() for _ in range(num_requests)]
        if name == "alone":
            # The engine's thread has no event to wait for.
            while len(self._ends) - began < 2 * num_requests:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        else:
            for number, cold in enumerate(digests):
                digest = cold if name == "cold" else self._warm
                figures.first_token_ms.append(await self._ask(digest, number=number))
        ends = self._ends[began:]
        figures.gaps_ms = [(late - early) * 1000 for early, late in pairwise(ends)]
        return figures

    async def _ask(self, digest: str, *, number: int) -> float:
        """Milliseconds until the first token of one request."""
        pieces = self._serving.generate(
            GenerateRequest(
                request_id=str(uuid4()),
                prompt=QUESTION,
                images=(self._pictures[number % len(self._pictures)],),
                vectors=(VectorUse(sha256=digest, name="bench", version=1),),
                max_tokens=ANSWER_TOKENS,
            )
        )
        answer = await anext(pieces)
        if not isinstance(answer, GenerateResponse):
            raise TypeError("the answer was to come whole")
        return answer.timings.queue_ms + answer.timings.prefill_ms


@asynccontextmanager
async def _background(
    backbone: Backbone, device: DeviceThread, *, num_rows: int
) -> AsyncIterator[None]:
    """Rows that decode during the block; whoever ends is followed by another."""
    asked = from_pixels(
        backbone, image_prompts(backbone, num_rows), random_shifts(backbone, num_rows)
    )

    async def keep_decoding(one: Asked) -> None:
        while True:
            row = row_of(one, num_tokens=BACKGROUND_TOKENS)
            await device.generate(row.id, partial(_as_it_is, row))

    tasks = [asyncio.create_task(keep_decoding(one)) for one in asked]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _as_it_is(row: Row) -> Row:
    return row
