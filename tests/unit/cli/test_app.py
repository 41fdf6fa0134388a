import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from app.cli import app as app_module
from app.cli.app import COMMANDS, build, main
from app.cli.database import forget_postgres_variables
from app.cli.options import read_settings
from app.cli.processes.environments import child_environment
from app.core.errors import ConfigurationError
from app.core.version import software_version

runner = CliRunner()


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "VLIBRARY_DATABASE_URL", "VLIBRARY_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; from app.cli.app import build; from typer.testing import CliRunner; "
        "result = CliRunner().invoke(build(), ['--help']); print(result.stdout); "
        "heavy = {'torch', 'transformers', 'sqlalchemy', 'fastapi', 'faiss'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    found = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in COMMANDS)


def test_every_command_that_ends_by_itself_prints_json_when_asked() -> None:
    def without(command: object, name: str) -> Iterator[str]:
        for part, inner in getattr(command, "commands", {}).items():
            yield from without(inner, f"{name} {part}".strip())
        options = {option for each in getattr(command, "params", ()) for option in each.opts}
        if not hasattr(command, "commands") and "--json" not in options:
            yield name

    # Those that run until they are ended.
    assert set(without(get_command(build()), "")) == {"serve", "worker", "api"}


def test_nothing_of_a_help_is_taken_for_markup() -> None:
    def texts(command: Any) -> Iterator[str]:  # noqa: ANN401 - a command, or a group of them
        for inner in getattr(command, "commands", {}).values():
            yield from texts(inner)
        yield from filter(None, (command.help, *(part.help for part in command.params)))

    found = list(texts(get_command(build())))
    assert [text for text in found if Text.from_markup(text).plain != text] == []


def test_the_version_is_printed() -> None:
    result = runner.invoke(build(), ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, software_version())


@pytest.mark.parametrize("command", ["worker", "api"])
def test_parts_that_need_a_database_say_so_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vlibrary", command])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vlibrary: ")
    assert "DATABASE_URL" in line


@pytest.mark.parametrize(
    "command", ["migrate", "serve", "api", "gc", "backup {}/library", "keys list --database"]
)
def test_a_database_that_is_away_is_one_line(
    command: str,
    *,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@127.0.0.1:9/library")
    monkeypatch.setenv("VLIBRARY_WORKER_SECRET", "between us")
    monkeypatch.setattr(sys, "argv", ["vlibrary", *command.format(tmp_path).split()])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vlibrary: The database that DATABASE_URL names: connection failed")
    assert "port 9 failed: Connection refused" in line
    assert "secret" not in line


def test_a_file_that_cannot_be_opened_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(COMMANDS, "gc", (tmp_path / "none").read_bytes)
    monkeypatch.setattr(sys, "argv", ["vlibrary", "gc"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"vlibrary: No such file or directory: {tmp_path / 'none'}\n"


def test_contradictory_settings_are_told_without_their_values() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(port=99999, database_url="postgres://user:secret@host/db")
    assert "port" in caught.value.message
    assert "secret" not in caught.value.message
    with pytest.raises(ConfigurationError, match="settings: the api and the worker need different"):
        read_settings(port=8111, worker_port=8111)


def test_options_win_over_the_environment_and_only_when_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLIBRARY_PORT", "8111")
    assert read_settings(port=None).port == 8111
    assert read_settings(port=8222).port == 8222


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VLIBRARY_PROT", "VLIBRARY_PORT"),
        ("VLIBRARY_REQUIRE_KEY", "VLIBRARY_REQUIRE_KEYS"),
        ("vlibrary_datadir", "VLIBRARY_DATA_DIR"),
    ],
)
def test_a_misspelt_setting_is_told(name: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError, match=f"{name} is no setting: {meant} is"):
        read_settings()


@pytest.mark.parametrize(
    "name",
    [
        "VLIBRARY_URL", "VLIBRARY_API_KEY", "VLIBRARY_WORKER_SECRET_FILE", "VLIBRARY_WORKER_CPUS",
        "VLIBRARY_WORKER_MEMORY", "VLIBRARY_FUZZ_CASES", "VLIBRARY_FAILPOINTS",
        "VLIBRARY_KILL_CYCLES", "VLIBRARY_API_SERVICE_HOST", "VLIBRARY_API_PORT_8000_TCP_ADDR",
    ],
)  # fmt: skip
def test_names_of_others_are_passed_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    read_settings()


def test_nothing_set_for_another_database_reaches_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    monkeypatch.setenv("PATH_OF_MINE", "kept")
    with pytest.raises(psycopg.OperationalError, match="elsewhere"):
        psycopg.connect("host=/nowhere", connect_timeout=2)
    forget_postgres_variables()
    with pytest.raises(psycopg.OperationalError, match="No such file"):
        psycopg.connect("host=/nowhere", connect_timeout=2)
    assert child_environment({})["PATH_OF_MINE"] == "kept"


def test_every_command_has_a_sentence_of_help() -> None:
    assert all(command.__doc__ for command in app_module.COMMANDS.values())
