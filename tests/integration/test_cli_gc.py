"""`vlibrary gc` as a process of its own."""

import json
import subprocess
import sys

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
