import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from app.library.storage import ObjectStore
from app.method.backbone.loading import load_backbone
from app.method.steering.vectors import InContextVectors
from app.rpc.generation import SamplingParams
from app.worker.engine.sequence import Sequence
from app.worker.serving.responses import first_token_divergence
from tests.fakes.answers import answer_of
from tests.fakes.servers.serving import png, request_of, running_parts
from tests.fakes.waiting import until, wait_until

TASKS = Path("/proc/self/task")
# What torch computes alone has fewer elements.
MANY = 100_000

pytestmark = pytest.mark.skipif(
    not TASKS.exists(), reason="only Linux tells of a process's threads"
)


def num_helpers() -> int:
    """Threads that Python knows nothing of, OpenMP's among them."""
    return len(list(TASKS.iterdir())) - threading.active_count()


def steady_helpers() -> int:
    """The same when those are gone whose owners have ended, which takes them a moment."""
    found: list[int] = []

    def are_steady() -> bool:
        found.append(num_helpers())
        return len(found) >= 10 and len(set(found[-10:])) == 1

    wait_until(are_steady)
    return found[-1]


def test_only_the_device_thread_has_helpers_that_compute(
    tmp_path: Path, three_threads: int
) -> None:
    """Others' would slow its down: passes of a small backbone took more than twice as long."""
    backbone = load_backbone("pocket", device="cpu", dtype="float32")
    objects = ObjectStore((tmp_path / "objects").as_uri())
    slots = MANY // backbone.hidden_size
    helpers = steady_helpers()

    async def serve() -> None:
        async with running_parts(backbone, objects, vector_cache_slots=slots) as parts:
            request = request_of(
                vectors=[parts.use(0)], images=[png(side=64)], max_tokens=2, baseline=True
            )
            answer = await answer_of(parts.serving, request)
            assert answer.receipt.sites_hit == backbone.description.num_sites
            await until(lambda: num_helpers() == helpers + three_threads - 1, seconds=10)

    # The thread of the tests has computed before, so it may have helpers already.
    with ThreadPoolExecutor(1) as fresh:
        fresh.submit(asyncio.run, serve()).result()


def numbers(*shape: int) -> torch.Tensor:
    """Zeros that torch did not have to write."""
    return torch.from_numpy(np.zeros(shape, dtype=np.float32))


def divergence() -> object:
    made = [
        Sequence(
            id=name,
            inputs={"input_ids": torch.ones(1, 1, dtype=torch.long)},
            sampling=SamplingParams(max_tokens=1),
        )
        for name in ("steered", "plain")
    ]
    for one in made:
        one.first_log_probabilities = numbers(MANY)
    return first_token_divergence(*made)


def vector_file() -> object:
    many = numbers(100, MANY // 100)
    return InContextVectors(
        attention_vectors=many,
        mlp_vectors=many,
        attention_weights=numbers(100),
        mlp_weights=numbers(100),
    ).to_tensors()


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("work", [divergence, vector_file])
def test_what_is_done_beside_the_device_thread_gives_no_thread_helpers(
    work: Callable[[], object],
) -> None:
    helpers = steady_helpers()

    def helpers_afterwards() -> int:
        work()
        return num_helpers()

    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(helpers_afterwards).result() == helpers
