"""`vlibrary keys` asks the server that is told of, and else the database itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.app import build
from app.core.settings import Settings
from app.main import create_app
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker

CREATE = ("create", "web", "--scope", "read", "--scope", "steer")


@pytest.fixture(autouse=True)
def configuration(user_file: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATABASE_URL", database)
    return user_file


@pytest.fixture
def url(settings: Settings, worker: FakeWorker) -> Iterator[str]:
    with serving(create_app(settings, workers=worker.client())) as address:
        yield address


def run(*words: str) -> Result:
    return CliRunner().invoke(build(), ["keys", *words])


def told(*words: str) -> Any:  # noqa: ANN401 - JSON
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    # The api of this process may log beside it.
    return json.JSONDecoder().raw_decode(result.stdout, result.stdout.index("{\n"))[0]


@pytest.fixture
def admin(url: str) -> str:
    """A key to the workspace `north`, made while no server is told of."""
    assert url
    return str(told("create", "admin", "--scope", "admin", "--workspace", "north")["key"])


def test_a_server_makes_lists_and_revokes_keys(url: str, admin: str) -> None:
    server = ("--url", url, "--key", admin)
    made = told(*CREATE, "--days", "7", "--max-jobs", "2", *server)
    assert (made["workspace"], made["scopes"]) == ("north", ["read", "steer"])
    assert made["quotas"] == {"requests": None, "jobs": 2, "bytes": None, "vectors": None}
    assert made["key"].startswith(f"vlib_{made['id']}_")
    told(*CREATE)
    # The server knows the caller's workspace, the database all of them.
    assert [key["name"] for key in told("list", *server)["items"]] == ["web", "admin"]
    assert {key["workspace"] for key in told("list")["items"]} == {"default", "north"}
    assert made["id"] in run("list", *server).stdout
    assert f"Revoked {made['id']} (web)" in run("revoke", made["key"], *server).stdout
    assert told("list", *server)["items"][0]["revoked"] is not None


def test_environment_and_file_tell_of_a_server_and_the_option_of_the_database(
    url: str, admin: str, *, configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration.write_text(f'url = "{url}"\nkey = "{admin}"\n')
    assert told(*CREATE)["workspace"] == "north"
    assert told(*CREATE, "--database")["workspace"] == "default"
    configuration.unlink()
    assert told(*CREATE)["workspace"] == "default"
    monkeypatch.setenv("VLIBRARY_URL", url)
    monkeypatch.setenv("VLIBRARY_API_KEY", admin)
    assert told(*CREATE)["workspace"] == "north"
    assert told(*CREATE, "--database", "--workspace", "south")["workspace"] == "south"
    monkeypatch.delenv("VLIBRARY_URL")
    # A key is for a server, which is then looked for where it usually is.
    monkeypatch.setattr("vlibrary_client.wire.connection.DEFAULT_BASE_URL", url)
    assert told(*CREATE)["workspace"] == "north"


def test_what_a_server_does_not_do_is_told(url: str, admin: str) -> None:
    server = ("--url", url, "--key", admin)
    weak = told(*CREATE, *server)["key"]
    for words, code, reason in (
        ((*CREATE, "--workspace", "south", *server), 2, "--database"),
        (("list", "--database", "--url", url), 2, "--database"),
        (("create", "x", "--scope", "root", *server), 1, "scopes"),
        (("list", "--url", url, "--key", weak), 1, "admin"),
        (("list", "--url", url), 1, "key"),
        (("revoke", "0123456789abcdef", *server), 1, "no such key"),
    ):
        result = run(*words)
        assert result.exit_code == code, result.output
        assert reason in result.stderr
