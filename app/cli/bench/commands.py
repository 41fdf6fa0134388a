"""The command `vlibrary bench` with one subcommand a file.

To add one, write `app/cli/bench/<name>.py` with a function whose heavy imports are inside, and
register it in `COMMANDS`.
"""

from collections.abc import Callable
from typing import Any, Final

import typer

from app.cli.bench.cold_vector import cold_vector
from app.cli.bench.engine import engine
from app.cli.bench.overload import overload
from app.cli.bench.peers import peers
from app.cli.bench.prompts import prompts
from app.cli.bench.rest import rest
from app.cli.bench.steering import steering

COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    "prompts": prompts,
    "engine": engine,
    "steering": steering,
    "peers": peers,
    "cold-vector": cold_vector,
    "rest": rest,
    "overload": overload,
}

bench = typer.Typer(name="bench", help="Measure speed, as ratios of one run.", no_args_is_help=True)


@bench.callback()
def root() -> None:
    """Measure speed, as ratios of one run."""


for _name, _command in COMMANDS.items():
    bench.command(_name)(_command)
