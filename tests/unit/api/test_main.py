import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI
from procrastinate.exceptions import ConnectorException
from pydantic import SecretStr

from app.api import maintenance
from app.api.dependencies import Services
from app.api.maintenance import maintain, remove_abandoned_files
from app.cli.processes.api import make_server
from app.core.errors import BusyError, ConfigurationError
from app.core.settings import Settings
from app.main import create_app, worker_urls


def test_the_api_loads_no_torch() -> None:
    script = (
        "import sys, app.main\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_a_database_there_is_no_api(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        create_app(settings)


def test_settings_come_from_the_environment_when_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[str] = []
    monkeypatch.setattr("app.main.configure_logs", levels.append)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("VLIBRARY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("VLIBRARY_LOG_LEVEL", "error")
    app = create_app()
    found: Services = app.state.services
    assert found.settings.data_dir == tmp_path
    assert levels == ["error"]


def test_the_worker_beside_is_the_default(settings: Settings) -> None:
    assert worker_urls(settings) == ("http://127.0.0.1:8001",)
    several = settings.model_copy(update={"workers": ("http://a:1", "http://b:2")})
    assert worker_urls(several) == ("http://a:1", "http://b:2")


def test_every_worker_adds_its_places(settings: Settings) -> None:
    several = settings.model_copy(
        update={
            "workers": ("http://a:1", "http://b:2", "http://c:3"),
            "max_rows": 1,
            "max_waiting": 2,
            "database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        }
    )
    services: Services = create_app(several).state.services
    with ExitStack() as stack:
        for _ in range(9):
            stack.enter_context(services.admission.place())
        with pytest.raises(BusyError), services.admission.place():
            pass


def test_the_databases_password_is_in_no_text(settings: Settings) -> None:
    secret = SecretStr("postgresql://u:hunter2@127.0.0.1:1/none")
    app = create_app(settings.model_copy(update={"database_url": secret}))
    assert "hunter2" not in repr(app.state.services)


def test_idle_connections_outlive_those_of_a_load_balancer(settings: Settings) -> None:
    """One that closes first closes under a request that is on its way."""
    server = make_server(FastAPI(), settings)
    assert server.config.timeout_keep_alive > 60


def test_only_abandoned_files_are_removed(tmp_path: Path) -> None:
    """An upload, and a folder with a copy of a data set, of a process that was killed."""
    for name in ("old.upload", "new.upload"):
        (tmp_path / name).touch()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "copy").touch()
    long_ago = time.time() - 2 * 24 * 3600
    for name in ("old.upload", "old"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    remove_abandoned_files(tmp_path.glob("*"))
    remove_abandoned_files((tmp_path / "missing").glob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.upload"]


def test_a_file_that_somebody_else_removed_keeps_no_other(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "b").unlink()
    # Listed, and not there when it is looked at.
    (tmp_path / "b").symlink_to("nowhere")
    remove_abandoned_files(tmp_path.glob("*"))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.anyio
async def test_what_a_killed_process_began_to_store_goes_when_it_is_old(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = (
        "import obstore, os, sys\n"
        "store = obstore.store.from_url(sys.argv[1])\n"
        "writer = obstore.open_writer(store, sys.argv[2], buffer_size=1)\n"
        "writer.write(b'rows' * 100_000)\n"
        "writer.flush()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    for key in ("datasets/old.parquet", "checkpoints/new"):
        await anyio.run_process(
            [sys.executable, "-c", writing, settings.objects_url, key], check=False
        )
    await services.store.put_bytes("datasets/whole.parquet", b"rows")
    objects = settings.data_dir / "objects"
    for path in objects.glob("datasets/*"):
        os.utime(path, (0, 0))
    looked = asyncio.Event()

    async def note(_services: Services) -> None:
        looked.set()

    monkeypatch.setattr(maintenance, "requeue_stalled_jobs", note)
    task = asyncio.create_task(maintain(services))
    async with asyncio.timeout(120):
        await looked.wait()
    task.cancel()
    left = [path.name for path in objects.rglob("*") if path.is_file()]
    assert sorted(left) == ["new#1", "whole.parquet"]


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [None, TimeoutError()])
async def test_what_is_old_is_not_looked_for_at_every_look(
    services: Services, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    done: list[str] = []
    enough = asyncio.Event()

    async def look(_services: Services) -> None:
        done.append("look")
        if done.count("look") == 3:
            enough.set()

    async def forget(_services: Services) -> None:
        done.append("forget")
        if failure is not None:
            raise failure

    monkeypatch.setattr(maintenance, "CHECKS_PER_STALL", 10**6)
    monkeypatch.setattr(maintenance, "requeue_stalled_jobs", look)
    monkeypatch.setattr(maintenance, "forget_old", forget)
    task = asyncio.create_task(maintain(services))
    async with asyncio.timeout(120):
        await enough.wait()
    task.cancel()
    assert done == ["look", "forget", "look", "look"]


@pytest.mark.anyio
async def test_maintenance_survives_a_folder_that_cannot_be_read(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: asyncio.Queue[None] = asyncio.Queue()

    def refuse(_paths: Iterable[Path]) -> None:
        raise PermissionError

    async def count(_services: Services) -> None:
        tried.put_nowait(None)

    monkeypatch.setattr(maintenance, "remove_abandoned_files", refuse)
    monkeypatch.setattr(maintenance, "requeue_stalled_jobs", count)
    task = asyncio.create_task(maintain(services))
    async with asyncio.timeout(120):
        await asyncio.wait(
            [task, looked := asyncio.create_task(tried.get())], return_when="FIRST_COMPLETED"
        )
    assert looked.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.anyio
async def test_maintenance_survives_a_missing_database(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: asyncio.Queue[None] = asyncio.Queue()
    real = maintenance.requeue_stalled_jobs

    async def counted(found: Services) -> None:
        tried.put_nowait(None)
        await real(found)

    monkeypatch.setattr(maintenance, "requeue_stalled_jobs", counted)
    monkeypatch.setattr(maintenance, "CHECKS_PER_STALL", 1000)
    task = asyncio.create_task(maintain(services))
    async with asyncio.timeout(120):
        await tried.get()
        await tried.get()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.anyio
async def test_maintenance_survives_what_nobody_thought_of(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: asyncio.Queue[None] = asyncio.Queue()

    async def broken(_services: Services) -> None:
        tried.put_nowait(None)
        raise ConnectorException

    monkeypatch.setattr(maintenance, "requeue_stalled_jobs", broken)
    monkeypatch.setattr(maintenance, "CHECKS_PER_STALL", 1000)
    task = asyncio.create_task(maintain(services))
    async with asyncio.timeout(120):
        await tried.get()
        await tried.get()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
