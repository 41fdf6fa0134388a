"""The environment that a child process is started with, as far as `Settings` reads it."""

import os
from collections.abc import Mapping
from typing import Final

# Settings that belong to one running service, and would harm or hide another one.
_OF_ONE_SERVICE: Final = (
    "data_dir",
    "database_url",
    "object_store",
    "host",
    "port",
    "workers",
    "worker_host",
    "worker_port",
    "worker_role",
    "policy_vectors",
)


def child_environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for a child process, with settings replaced.

    Overrides are values by field name of `Settings`, such as `{"port": "8000"}`.

    Returns:
        Every variable of this process and `VLIBRARY_<FIELD>` for each override.
    """
    return {**os.environ, **_variables(overrides)}


def own_environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that is to be a service of its own.

    Returns:
        As `child_environment`, without what would lead the child to another service's database,
        workers, files or port.
    """
    elsewhere = {"DATABASE_URL", *(f"VLIBRARY_{field.upper()}" for field in _OF_ONE_SERVICE)}
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    return {**kept, **_variables(overrides)}


def _variables(overrides: Mapping[str, str]) -> dict[str, str]:
    return {f"VLIBRARY_{field.upper()}": value for field, value in overrides.items()}
