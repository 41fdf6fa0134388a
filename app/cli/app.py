"""The command `vlibrary` with its subcommands.

To add one, write `app/cli/<name>.py` with a function whose heavy imports are inside, and register
it in `COMMANDS`.
"""

import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, Final, NoReturn

import typer

from app.cli.backup import backup, restore
from app.cli.console import accept_every_text, flush_results, harmless
from app.cli.datasets import datasets
from app.cli.demo.command import demo
from app.cli.doctor import doctor
from app.cli.gc import gc
from app.cli.keys import keys
from app.cli.library.asking import audit, retrieve, steer
from app.cli.library.jobs import jobs
from app.cli.library.sharing import export, import_, pull, push
from app.cli.library.sync import sync
from app.cli.library.vectors import vectors
from app.cli.local.evaluate import evaluate
from app.cli.local.train import settings_help, train
from app.cli.migrate import migrate
from app.cli.processes.api import api
from app.cli.processes.serve import serve
from app.cli.processes.worker import worker
from app.core.errors import VLibraryError
from app.core.telemetry.logs import configure_logs
from app.core.version import software_version

COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    command.__name__.rstrip("_"): command
    for command in (
        *(serve, worker, api, migrate, doctor, gc, backup, restore, train, evaluate, demo),
        *(export, import_, push, pull, sync, retrieve, steer, audit),
    )
}


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer passes the flag's value
    if value:
        print(software_version())
        raise typer.Exit


def build() -> typer.Typer:
    """The command line with every command of `COMMANDS`."""
    cli = typer.Typer(
        name="vlibrary",
        help="Train, keep, find and apply multimodal in-context vectors.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @cli.callback()
    def root(
        *,
        _version: Annotated[
            bool,
            typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
        ] = False,
    ) -> None:
        pass

    epilogs = {"train": settings_help()}
    for name, command in COMMANDS.items():
        cli.command(name, epilog=epilogs.get(name))(command)
    cli.add_typer(keys)
    cli.add_typer(datasets)
    cli.add_typer(jobs)
    cli.add_typer(vectors)
    return cli


class _Ended(SystemExit):
    """The end that a signal asks for; raised, so that what was made for the time is removed."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)
        self.number = number


def _end(number: int, _frame: object) -> NoReturn:
    raise _Ended(signal.Signals(number))


def main() -> None:
    """Run the command line; an error of the library or of the system is one line, status 1."""
    accept_every_text()
    # What `nohup` ignores stays ignored.
    before = {
        number: signal.signal(number, _end) or signal.SIG_DFL
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    # What a command prints is its result; a service says otherwise itself.
    configure_logs("warning")
    try:
        try:
            build()()
        finally:
            flush_results()
    except _Ended as end:
        signal.signal(end.number, before[end.number])
        signal.raise_signal(end.number)
    except VLibraryError as error:
        print(f"vlibrary: {harmless(error.message)}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read the results has seen enough.
        sys.exit(1)
    except OSError as error:
        place = "" if error.filename is None else f": {error.filename}"
        print(harmless(f"vlibrary: {error.strerror or error}{place}"), file=sys.stderr)
        sys.exit(1)
