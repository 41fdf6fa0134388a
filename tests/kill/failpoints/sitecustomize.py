"""Failpoints: named places in the api and in a worker where a process is killed on demand.

Python imports this file before anything else when its folder is on PYTHONPATH, so the product
itself knows nothing of it. A place is armed by a file of its name, which holds the process to
kill, or 0 for the one that gets there; whoever gets there first takes the file away.
"""

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def reach(place: str) -> None:
    """Kills what is armed at this place."""
    armed = Path(os.getenv("VLIBRARY_FAILPOINTS", "")) / place
    try:
        victim = int(armed.read_text())
        armed.unlink()
    except FileNotFoundError:
        return
    os.kill(victim or os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, place: str) -> None:  # noqa: ANN401 - a module or a class
    """Puts a place in front of a function."""
    inner: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(inner)
    def placed(*arguments: object, **options: object) -> object:
        reach(place)
        return inner(*arguments, **options)

    setattr(owner, name, placed)


def after(owner: Any, name: str, place: str) -> None:  # noqa: ANN401 - a module or a class
    """Puts a place behind a coroutine function."""
    inner: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(inner)
    async def placed(*arguments: object, **options: object) -> object:
        result = await inner(*arguments, **options)
        reach(place)
        return result

    setattr(owner, name, placed)


def in_api() -> None:
    from sqlalchemy import event  # noqa: PLC0415 - only where it is used
    from sqlalchemy.orm import Session  # noqa: PLC0415

    from app.library import datasets, garbage, storage, vectors  # noqa: PLC0415

    before(datasets, "convert_upload", "api-upload-received")
    after(storage.ObjectStore, "put_file", "api-file-stored")
    after(vectors, "create_vector", "api-vector-inserted")
    before(garbage, "drop_unneeded", "api-dataset-deleted")
    event.listen(Session, "before_commit", lambda _: reach("api-before-commit"))
    event.listen(Session, "after_commit", lambda _: reach("api-after-commit"))


def in_worker() -> None:
    from app.library import vectors  # noqa: PLC0415 - only where it is used

    after(vectors, "create_vector", "worker-vector-inserted")
    from app.worker.training import results  # noqa: PLC0415

    after(results, "store_result", "worker-result-stored")
    from app.worker.training import checkpoints, trainer  # noqa: PLC0415

    before(trainer.Trainer, "_execute", "worker-job-claimed")
    before(checkpoints.ObjectCheckpoints, "save", "worker-checkpoint")
    after(trainer.Trainer, "_store", "worker-result-published")


for command, patch in (("api", in_api), ("worker", in_worker)):
    if sys.orig_argv[1:4] == ["-m", "app", command]:
        try:
            patch()
        except Exception:  # noqa: BLE001 - Python would go on without the places that follow
            traceback.print_exc()
            os._exit(1)
