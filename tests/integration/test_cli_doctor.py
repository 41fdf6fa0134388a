"""The doctor on a healthy database, and on one that was damaged in each way it looks for."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from typer.testing import CliRunner

from app.cli.app import build
from app.cli.checks import (
    Finding,
    check_backbone,
    check_object_store,
    check_torch,
    database_checks,
    examine,
)
from app.cli.database import running_database
from app.core.identifiers import sha256_hex
from app.core.settings import Settings
from app.core.vectors.card import KeyCard
from app.library.database import opened
from app.library.datasets import create_dataset
from app.library.storage import ObjectStore, dataset_key
from app.library.task_keys import add_keys
from app.library.training.attempts import claim_job
from app.library.training.jobs import enqueue_training
from tests.fakes.library import store
from tests.fakes.models.backbones import tiny_backbone

pytestmark = pytest.mark.anyio

Sessions = async_sessionmaker[AsyncSession]
DATA = b"a dataset's bytes"


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"database_url": database, "data_dir": tmp_path, "job_stalled_seconds": 0.01}
    )


@pytest.fixture
async def furnished(settings: Settings, sessions: Sessions) -> Settings:
    """A database with vectors, keys and a dataset."""
    digest = sha256_hex(DATA)
    await ObjectStore(settings.objects_url).put_bytes(dataset_key(digest), DATA)
    async with sessions() as session, session.begin():
        await create_dataset(
            session,
            name="colours",
            sha256=digest,
            size_bytes=len(DATA),
            num_items=4,
            num_images=2,
            storage_key=dataset_key(digest),
        )
        for seed in range(3):
            vector = await store(session, f"task-{seed}", seed=seed)
            rows = np.eye(4, dtype=np.float32)[[seed]]
            key = KeyCard.of(rows, space="space", threshold=0.5)
            await add_keys(session, key, vector_id=vector.id)
    return settings


async def _find(settings: Settings, sessions: Sessions) -> dict[str, Finding]:
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    findings = await examine(database_checks(settings, sessions, url=url))
    return {finding.name: finding for finding in findings}


def _bad(findings: dict[str, Finding]) -> set[str]:
    return {name for name, finding in findings.items() if not finding.is_ok}


async def test_a_healthy_database_has_no_bad_finding(
    furnished: Settings, sessions: Sessions
) -> None:
    findings = await _find(furnished, sessions)
    assert _bad(findings) == set()
    assert findings["vectors"].detail.startswith("3 files")
    assert findings["datasets"].detail.startswith("1 files")
    assert "3 vectors in 1 spaces" in findings["keys"].detail


async def test_a_damaged_vector_file_is_named(furnished: Settings, sessions: Sessions) -> None:
    async with sessions() as session, session.begin():
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        flipped = "set_byte(blob, 600, 1 # get_byte(blob, 600))"
        await session.execute(
            text(f"UPDATE vectors SET blob = {flipped} WHERE name = 'task-1'")  # noqa: S608 - ours
        )
    findings = await _find(furnished, sessions)
    assert _bad(findings) == {"vectors"}
    assert "task-1@1" in findings["vectors"].detail


async def test_a_missing_or_damaged_dataset_file_is_named(
    furnished: Settings, sessions: Sessions
) -> None:
    objects, key = ObjectStore(furnished.objects_url), dataset_key(sha256_hex(DATA))
    await objects.put_bytes(key, b"other bytes")
    damaged = await _find(furnished, sessions)
    await objects.delete(key)
    missing = await _find(furnished, sessions)
    for findings in (damaged, missing):
        assert _bad(findings) == {"datasets"}
        assert "colours" in findings["datasets"].detail


async def test_a_key_without_a_vector_is_found(furnished: Settings, sessions: Sessions) -> None:
    async with sessions() as session, session.begin():
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        await session.execute(text("UPDATE vectors SET deleted = now() WHERE name = 'task-2'"))
    findings = await _find(furnished, sessions)
    assert _bad(findings) == {"keys"}
    assert "without a vector" in findings["keys"].detail


async def test_a_running_job_without_a_worker_is_found(
    furnished: Settings, sessions: Sessions
) -> None:
    async with sessions() as session, session.begin():
        dataset = (await session.execute(text("SELECT id FROM datasets"))).scalar_one()
        job = await enqueue_training(session, name="task", dataset_id=dataset, config={})
        await claim_job(session, job.id)
    await asyncio.sleep(0.05)
    findings = await _find(furnished, sessions)
    assert _bad(findings) == {"jobs"}
    assert str(job.id) in findings["jobs"].detail


async def test_a_database_that_is_behind_is_found(furnished: Settings, sessions: Sessions) -> None:
    async with sessions() as session, session.begin():
        newest = (await session.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        await session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        findings = await _find(furnished, sessions)
    finally:
        async with sessions() as session, session.begin():
            query = text("UPDATE alembic_version SET version_num = :newest")
            await session.execute(query, {"newest": newest})
    assert _bad(findings) == {"migrations"}
    assert "found 0001" in findings["migrations"].detail


async def test_store_torch_and_backbone_are_looked_at(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    backbone = tiny_backbone()
    backbone.model.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    good = settings.model_copy(update={"backbone": str(folder), "device": "cpu"})
    bad = settings.model_copy(update={"backbone": str(tmp_path / "none")})
    findings = await examine(
        {
            "store": lambda: check_object_store(good),
            "torch": check_torch,
            "good": lambda: check_backbone(good),
            "bad": lambda: check_backbone(bad),
        }
    )
    assert {finding.name: finding.is_ok for finding in findings} == {
        "store": True,
        "torch": True,
        "good": True,
        "bad": False,
    }


@pytest.fixture
def folder() -> Iterator[Path]:
    # Postgres may run as another account, which cannot enter pytest's own folders.
    made = Path(tempfile.mkdtemp(prefix="vlibrary-test-", dir="/tmp"))
    made.chmod(0o711 if os.geteuid() == 0 else 0o700)
    yield made
    shutil.rmtree(made)


def test_the_command_reports_a_fresh_machine_and_its_own_database(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "VLIBRARY_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLIBRARY_DATA_DIR", str(folder))
    monkeypatch.setenv("VLIBRARY_BACKBONE", str(folder / "none"))
    fresh = CliRunner().invoke(build(), ["doctor", "--json"])
    report = json.loads(fresh.stdout)
    assert (fresh.exit_code, report["ok"]) == (1, False)
    assert [one["name"] for one in report["checks"] if not one["is_ok"]] == ["backbone"]
    assert "none yet" in report["checks"][0]["detail"]

    settings = Settings()
    with running_database(settings, is_shared=True) as database:
        assert database.url
        told = CliRunner().invoke(build(), ["doctor"]).stdout
    lines = {line.split()[1]: line.split()[0] for line in told.splitlines()}
    assert lines["migrations"] == lines["vectors"] == lines["keys"] == "ok"
    assert lines["backbone"] == "FAIL"


async def test_a_database_that_is_away_is_one_line_of_each_check(tmp_path: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    settings = Settings.model_validate({"database_url": url, "data_dir": tmp_path})
    async with opened(url) as sessions:
        findings = await examine(database_checks(settings, sessions, url=url))
    assert len(findings) == 6
    for finding in findings:
        assert not finding.is_ok
        assert "refused" in finding.detail
        assert "\n" not in finding.detail
