"""Options that commands share, and settings: the environment, with options given on top."""

import difflib
import os
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from pydantic import ValidationError

from app.core.errors import ConfigurationError
from app.core.settings import Settings

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Backbone: TypeAlias = Annotated[
    str | None, typer.Option(help="pocket, pocket-2, a folder or a hub id.")
]
LocalBackbone: TypeAlias = Annotated[
    str, typer.Option(help="pocket, pocket-2, a folder or a hub id.")
]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda:1, balanced ...")]
Seed: TypeAlias = Annotated[int, typer.Option(min=0)]
Revision: TypeAlias = Annotated[str | None, typer.Option(help="Commit, branch or tag of a hub id.")]


# Names that are no settings of a process: of clients, of compose.yaml and of the images.
_OF_OTHERS: Final = frozenset(
    {"url", "api_key", "worker_cpus", "worker_memory", "worker_secret_file", "database_url_file"}
)
_LEAST_LIKENESS: Final = 0.75


def read_settings(**options: object) -> Settings:
    """The settings of this process; an option that is None was not given.

    Raises:
        ConfigurationError: A name is misspelt, a value out of bounds, or two contradict each other.
    """
    for variable, meant in _misspelt_settings(Settings.model_fields).items():
        raise ConfigurationError(f"{variable} is no setting: {meant} is")
    changes = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings.model_validate(changes)
    except ValidationError as error:
        # The rejected values themselves may be secrets, so only places and reasons are told.
        reasons = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: "
            + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"the settings cannot be used: {reasons}") from error


def _misspelt_settings(known: Collection[str]) -> dict[str, str]:
    """Variables of this process that look like a setting's and are none, with what was meant."""
    found = {}
    for variable in os.environ:  # noqa: TID251 - names alone
        name = variable.lower().removeprefix("vlibrary_")
        if name == variable.lower() or name in known or name in _OF_OTHERS:
            continue
        for meant in difflib.get_close_matches(name, known, 1, _LEAST_LIKENESS):
            found[variable] = f"VLIBRARY_{meant.upper()}"
    return found


def refuse_given(context: typer.Context, names: Collection[str], why: str) -> None:
    """Returns when none of these options was given, which would be passed over.

    Raises:
        BadParameter: One was; `why` follows its name.
    """
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{option.opts[0]} {why}")


def read_number(text: str, what: str, *, most: float) -> tuple[str, float | None]:
    """A reference and the number behind it, if any.

    Raises:
        BadParameter: It is no number from -`most` to `most`.
    """
    ref, equals, number = text.partition("=")
    with suppress(ValueError):
        if not equals or abs(float(number)) <= most:
            return ref, float(number) if equals else None
    raise typer.BadParameter(f"wanted REF={what} from -{most:g} to {most:g}, found {text}")


def require_worker_secret(settings: Settings) -> None:
    """Returns when api and workers have something to know each other by.

    Raises:
        ConfigurationError: They have not.
    """
    if settings.worker_secret is None:
        raise ConfigurationError(
            "The api and its workers know each other by a secret: set VLIBRARY_WORKER_SECRET to "
            "the same long random text for all of them, or use `vlibrary serve`"
        )


def require_writable(folder: Path, *, option: str = "--output") -> None:
    """Returns when the results can be written there.

    Raises:
        ConfigurationError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to {folder.resolve()}: {error.strerror or error}; "
            f"choose another folder with {option}"
        ) from error
