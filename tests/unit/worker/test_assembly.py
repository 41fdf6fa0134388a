import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.core.threads import on_passing_thread
from app.library.storage import ObjectStore
from app.method.backbone import load_backbone
from tests.fakes.serving import png, request_of, running_parts
from tests.fakes.waiting import until

TASKS = Path("/proc/self/task")


def num_helpers() -> int:
    """Threads that Python knows nothing of, OpenMP's among them."""
    return len(list(TASKS.iterdir())) - threading.active_count()


@pytest.fixture
def three_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.mark.skipif(not TASKS.exists(), reason="only Linux tells of a process's threads")
def test_only_the_device_thread_has_helpers_that_compute(
    tmp_path: Path, three_threads: int
) -> None:
    """Others' would slow its down: passes of a small backbone took more than twice as long."""
    backbone = load_backbone("pocket", device="cpu", dtype="float32")
    objects = ObjectStore((tmp_path / "objects").as_uri())

    async def serve() -> None:
        before = num_helpers()
        async with running_parts(backbone, objects) as parts:
            await until(lambda: num_helpers() <= before, seconds=10)
            request = request_of(vectors=[parts.use(0)], images=[png(side=64)])
            answer = await parts.serving.generate(request)
            assert answer.receipt.sites_hit == parts.device.num_sites
            assert num_helpers() == before + three_threads - 1

    # The thread of the tests has computed before, so it may have helpers already.
    on_passing_thread(lambda: asyncio.run(serve()))
