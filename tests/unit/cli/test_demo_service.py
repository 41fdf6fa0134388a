import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.cli.options import require_writable
from app.cli.processes.environments import own_environment
from app.cli.processes.temporary import passing_folder, running_service
from app.core.errors import ConfigurationError, UnavailableError
from tests.fakes.servers.installation import descendants, is_alive, processes_about
from tests.fakes.waiting import wait_until

LONG_SECONDS = 240.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with passing_folder() as made:
        yield made


@pytest.fixture
def no_postgres(folder: Path) -> dict[str, str]:
    """Settings that no service can start with."""
    return {"pg_bin": str(folder / "nowhere")}


def outlast(
    data_dir: Path,
    *,
    settings: dict[str, str] | None = None,
    act: Callable[[], None] = lambda: None,
) -> None:
    """Starts a service and waits in its block for longer than any test may take."""
    with running_service(data_dir, settings=settings):
        act()
        time.sleep(LONG_SECONDS)
    pytest.fail("nobody noticed that the service ended")


def test_a_service_that_cannot_start_is_noticed_and_its_log_shown(
    folder: Path, no_postgres: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnavailableError, match="ended with status 1"):
        outlast(folder / "data", settings=no_postgres)
    assert "nowhere" in capsys.readouterr().err


def test_a_service_that_is_killed_ends_what_waits_for_it(folder: Path) -> None:
    before = descendants(os.getpid())

    def kill() -> None:
        for child in descendants(os.getpid()) - before:
            os.kill(child, signal.SIGKILL)

    with pytest.raises(UnavailableError, match="ended with status -9"):
        outlast(folder / "data", act=kill)
    wait_until(lambda: not processes_about(folder))


def test_a_service_ends_with_whoever_is_killed(folder: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from app.cli.processes.temporary import running_service\n"
        "with running_service(Path(sys.argv[1])):\n    time.sleep(240)\n"
    )
    command = [sys.executable, "-c", script, str(folder / "data")]
    with subprocess.Popen(command) as parent:  # noqa: S603 - our own script
        wait_until((folder / "data" / "serve.log").exists)
        wait_until(lambda: len(descendants(parent.pid)) > 1)
        parent.kill()
    wait_until(lambda: not processes_about(folder))


def test_an_interrupt_of_the_user_stays_one(folder: Path) -> None:
    before = descendants(os.getpid())
    with pytest.raises(KeyboardInterrupt), running_service(folder / "data"):
        raise KeyboardInterrupt
    wait_until(lambda: not any(map(is_alive, descendants(os.getpid()) - before)))


def test_a_folder_of_the_users_does_not_take_the_place_of_the_code(
    folder: Path, no_postgres: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "app").mkdir()
    (folder / "app" / "__init__.py").write_text("raise SystemExit('the wrong app')")
    monkeypatch.chdir(folder)
    with pytest.raises(UnavailableError):
        outlast(Path("data"), settings=no_postgres)
    assert "nowhere" in (folder / "data" / "serve.log").read_text()


def test_a_service_of_its_own_uses_no_database_or_worker_of_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = {
        "DATABASE_URL": "postgresql://elsewhere/production",
        "VLIBRARY_DATABASE_URL": "postgresql://elsewhere/production",
        "VLIBRARY_WORKERS": "http://elsewhere:8001",
        "VLIBRARY_OBJECT_STORE": "s3://production",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VLIBRARY_DEVICE", "cpu")
    found = own_environment({"port": "8123"})
    assert found["VLIBRARY_PORT"] == "8123"
    assert found["VLIBRARY_DEVICE"] == "cpu"
    assert not theirs.keys() & found.keys()


def test_results_that_cannot_be_written_are_told_before_anything_starts(tmp_path: Path) -> None:
    taken = tmp_path / "results"
    taken.write_text("")
    with pytest.raises(ConfigurationError, match="--output"):
        require_writable(taken)
