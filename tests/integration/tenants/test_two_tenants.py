"""Two tenants of one service do all that a library is for, and neither notices the other.

A short walk belongs to `make test`; `make fuzz` takes `VLIBRARY_FUZZ_STEPS` (2,000) steps.
"""

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.access import Quotas
from app.core.settings import Settings
from app.library.access.access_keys import create_access_key
from app.library.database import make_engine, run_transaction, session_factory
from app.library.workspaces import in_workspace
from app.main import create_app
from tests.fakes.api_calls import parquet
from tests.fakes.keyed_files import make_keyed_file
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker
from tests.integration.tenants.machine import CONTENTS, LIMITED_VECTORS, SEEDS
from tests.integration.tenants.model import Tenant
from tests.integration.tenants.other_rules import OtherRules
from tests.integration.tenants.vector_rules import VectorRules

STEPS = int(os.environ.get("VLIBRARY_FUZZ_STEPS", "2000"))  # noqa: TID251 - of the test alone
STEPS_OF_A_WALK = 50
FEW_STEPS = 30
SPACE = f"backbone-{'a' * 16}-test"
QUIET = tuple(HealthCheck)


class TwoTenants(VectorRules, OtherRules):
    """All rules together."""


Walks: TypeAlias = Callable[[], TwoTenants]


def admit(database: str) -> Tenant:
    """A new workspace with the keys of its administrator and of a limited member."""

    async def make() -> tuple[list[str], list[str]]:
        engine = make_engine(database, pool_size=1)
        sessions = in_workspace(session_factory(engine), f"tenant-{uuid.uuid4().hex}")

        async def work(session: AsyncSession) -> tuple[list[str], list[str]]:
            made = [
                await create_access_key(session, name="test", scopes=["admin"], quotas=quotas)
                for quotas in (Quotas(), Quotas(vectors=LIMITED_VECTORS))
            ]
            return [key.id for key, _ in made], [token.text for _, token in made]

        try:
            return await run_transaction(sessions, work)
        finally:
            await engine.dispose()

    ids, texts = asyncio.run(make())
    tenant = Tenant(*({"authorization": f"Bearer {text}"} for text in texts))
    tenant.keys = dict.fromkeys(ids, False)
    tenant.deeds = [("key.create", key) for key in ids]
    return tenant


@pytest.fixture
def walks(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walks]:
    """Makes machines over one api, every one with two new workspaces."""
    # A key that was revoked opens nothing at once.
    monkeypatch.setattr("app.api.http.access.REMEMBERED_SECONDS", -1.0)
    worker = FakeWorker(space=SPACE)
    chosen = Settings.model_validate(
        {
            "database_url": database,
            "data_dir": tmp_path,
            "require_keys": True,
            "retrieval_poll_seconds": 0.1,
        }
    )
    files = [make_keyed_file(worker.description, seed=seed, space=SPACE) for seed in SEEDS]
    contents = [parquet(tmp_path, items=1 + number) for number in CONTENTS]
    with (
        serving(create_app(chosen, workers=worker.client())) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as http,
    ):
        yield lambda: TwoTenants(
            http, admit=lambda: admit(database), files=files, contents=contents
        )


def walk(walks: Walks, chosen: settings) -> tuple[int, int]:
    """How many steps were taken, in how many walks."""
    made: list[TwoTenants] = []

    def begin() -> TwoTenants:
        made.append(walks())
        return made[-1]

    run_state_machine_as_test(begin, settings=chosen)  # type: ignore[arg-type]  # it is called
    return sum(machine.num_steps for machine in made), len(made)


def test_two_tenants_do_not_notice_each_other(walks: Walks) -> None:
    chosen = settings(
        # The first walk is the simplest there is.
        max_examples=2,
        stateful_step_count=FEW_STEPS,
        phases=[Phase.generate],
        derandomize=True,
        suppress_health_check=QUIET,
    )
    steps, _ = walk(walks, chosen)
    assert steps > FEW_STEPS


@pytest.mark.fuzz
def test_two_tenants_do_not_notice_each_other_in_thousands_of_steps(walks: Walks) -> None:
    steps = num_walks = 0
    # Some walks end early.
    while steps < STEPS:
        chosen = settings(
            max_examples=2 - (STEPS - steps) // -STEPS_OF_A_WALK,
            stateful_step_count=STEPS_OF_A_WALK,
            # A walk that fails is short enough to be read as it is.
            phases=[Phase.generate],
            database=None,
            suppress_health_check=QUIET,
        )
        taken, walked = walk(walks, chosen)
        steps, num_walks = steps + taken, num_walks + walked
    print(f"{steps} steps in {num_walks} walks: 0 failures")  # noqa: T201 - the figure
