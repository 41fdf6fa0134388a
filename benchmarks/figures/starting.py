"""P13: how long a service takes from nothing to ready, and its api process alone."""

import secrets
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from app.cli.processes.environments import child_environment
from app.cli.processes.ports import free_port
from app.cli.processes.serve import CODE_FOLDER
from app.cli.processes.temporary import passing_folder, running_service
from app.core.settings import Settings
from app.postgres.server import EmbeddedPostgres
from benchmarks.harness import bar
from benchmarks.setting.service import seconds_until_ready, settings_for

HOST: Final = "127.0.0.1"


def start_figures(backbone: str, *, num_rounds: int) -> dict[str, Any]:
    """P13, P13_again and P13_api in seconds, with the rounds.

    Args:
        backbone: As given on the command line.
        num_rounds: How often everything is started.
    """
    seconds: dict[str, list[float]] = {"P13": [], "P13_again": [], "P13_api": []}
    with TemporaryDirectory(prefix="vlibrary-bench-") as parent:
        for _ in bar(num_rounds, "P13"):
            with passing_folder() as folder:
                settings = settings_for(
                    backbone,
                    Path(parent),
                    worker_port=free_port(HOST),
                    worker_secret=secrets.token_urlsafe(32),
                )
                for name in ("P13", "P13_again"):
                    began = perf_counter()
                    with running_service(folder, settings=settings) as url:
                        seconds[name].append(seconds_until_ready(url, began=began))
                        if name == "P13_again":
                            seconds["P13_api"].append(_api_alone(folder, settings))
    return {
        **{name: round(statistics.median(values), 2) for name, values in seconds.items()},
        "P13_seconds": {name: [round(one, 2) for one in each] for name, each in seconds.items()},
    }


def _api_alone(data_dir: Path, settings: dict[str, str]) -> float:
    """Seconds until one more api process is ready beside the database and the worker there are."""
    port = free_port(HOST)
    postgres = EmbeddedPostgres(Settings(data_dir=data_dir).postgres_dir)
    environment = child_environment(
        {
            "data_dir": str(data_dir),
            "database_url": postgres.url,
            "workers": f"http://{HOST}:{settings['worker_port']}",
            "worker_secret": settings["worker_secret"],
        }
    )
    command = [sys.executable, "-m", "app", "api", "--host", HOST, "--port", str(port)]
    log = data_dir / "api.log"
    began = perf_counter()
    with (
        log.open("wb") as file,
        subprocess.Popen(  # noqa: S603 - our own command line
            command, env=environment, cwd=CODE_FOLDER, stdout=file, stderr=file
        ) as process,
    ):
        try:
            return seconds_until_ready(f"http://{HOST}:{port}", began=began)
        finally:
            process.terminate()
