"""`vlibrary gc` as a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from app.cli.processes.environments import own_environment
from app.postgres.server import EmbeddedPostgres


def test_what_is_printed_is_json_alone(postgres: EmbeddedPostgres) -> None:
    # The own database is joined, which is logged.
    done = subprocess.run(
        [sys.executable, "-m", "app", "gc", "--json"],
        env=own_environment({"data_dir": str(postgres.data_dir.parent)}),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"datasets": 0, "checkpoints": 0}


def test_a_library_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "gc"],
        env=own_environment({"data_dir": str(tmp_path / "elsewhere")}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"vlibrary: No library in {tmp_path / 'elsewhere'}\n"
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_wait_for_each_other(open_folder: Path, pristine: Path) -> None:
    subprocess.run(["/bin/cp", "-a", pristine, open_folder], check=True)  # noqa: S603 - our own
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "app", "gc", "--json"],
            env=own_environment({"data_dir": str(open_folder)}),
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    told = [one.communicate()[0] for one in running]
    assert [one.returncode for one in running] == [0, 0, 0]
    assert [json.loads(one) for one in told] == 3 * [{"datasets": 0, "checkpoints": 0}]
