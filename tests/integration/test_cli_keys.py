"""`vlibrary keys` on a database, and what does not start without a key or a secret."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.app import build
from app.cli.keys import require_a_key
from app.cli.options import read_settings, require_worker_secret
from app.core.access import read_token
from app.core.errors import ConfigurationError, InvalidInputError, NotFoundError
from app.core.settings import Settings


@pytest.fixture(autouse=True)
def configured(database: str, user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("VLIBRARY_DATA_DIR", str(user_file.parent))


def keys(*words: str) -> Result:
    return CliRunner().invoke(build(), ["keys", *words])


def test_a_key_is_made_listed_and_revoked() -> None:
    made = keys("create", "web", "--scope", "steer", "--scope", "read", "--days", "7", "--json")
    assert made.exit_code == 0, made.output
    key = json.loads(made.stdout)
    token = read_token(key["key"])
    assert token is not None
    assert (token.id, key["scopes"]) == (key["id"], ["read", "steer"])
    listed = json.loads(keys("list", "--json").stdout)["items"]
    assert [(item["id"], item["revoked"]) for item in listed] == [(key["id"], None)]
    assert token.secret not in json.dumps(listed)
    assert "steer" in keys("list").stdout
    # The whole key will do, for whoever has nothing else at hand.
    assert key["id"] in keys("revoke", key["key"]).stdout
    assert json.loads(keys("revoke", key["id"], "--json").stdout)["revoked"] is not None


def test_a_key_opens_the_workspace_that_is_named() -> None:
    for words, workspace in (((), "default"), (("--workspace", "north"), "north")):
        made = json.loads(keys("create", "x", "--scope", "read", *words, "--json").stdout)
        assert made["workspace"] == workspace
    listed = json.loads(keys("list", "--json").stdout)["items"]
    assert [item["workspace"] for item in listed] == ["north", "default"]
    assert "north" in keys("list").stdout
    # Whoever has the database revokes the keys of all.
    assert json.loads(keys("revoke", listed[0]["id"], "--json").stdout)["revoked"] is not None
    refused = keys("create", "x", "--scope", "read", "--workspace", "Bad Name")
    assert isinstance(refused.exception, InvalidInputError)


def test_the_list_shows_what_a_key_may_fill() -> None:
    words = ("--max-vectors", "1000", "--max-jobs", "2", "--json")
    made = json.loads(keys("create", "x", "--scope", "write", *words).stdout)
    assert made["quotas"] == {"requests": None, "jobs": 2, "bytes": None, "vectors": 1000}
    listed = json.loads(keys("list", "--json").stdout)["items"]
    assert listed[0]["quotas"] == made["quotas"]
    shown = keys("list").stdout
    assert "2 jobs" in shown
    assert "1,000 vectors" in shown
    assert made["id"] in shown


def test_the_plain_output_is_the_key_alone() -> None:
    made = keys("create", "admin", "--scope", "admin")
    assert read_token(made.stdout.removesuffix("\n")) is not None
    assert "not shown again" in made.stderr


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_a_narrow_list_cuts_nothing(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    name, workspace = "a-long-name", "a-long-workspace"
    words = ("--scope", "train", "--max-bytes", "1000000", "--workspace", workspace, "--json")
    made = json.loads(keys("create", name, *words).stdout)
    keys("revoke", made["id"])
    shown = keys("list").stdout
    assert made["id"] in shown
    assert "…" not in shown
    rows = [line for line in shown.splitlines() if line.strip()]
    assert max(map(len, rows)) <= columns


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("create", "x", "--scope", "root"), InvalidInputError),
        (("create", "", "--scope", "read"), InvalidInputError),
        (("revoke", "0123456789abcdef"), NotFoundError),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], error: type[Exception]) -> None:
    assert isinstance(keys(*words).exception, error)


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({"host": "127.0.0.1"}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),  # noqa: S104 - nothing listens
        ({"host": "library.example.com"}, True),
        ({"host": "127.0.0.1", "require_keys": True}, True),
        ({"host": "0.0.0.0", "require_keys": False}, False),  # noqa: S104 - nothing listens
    ],
)
def test_an_api_that_others_reach_needs_a_key(
    database: str,
    changes: dict[str, object],
    needs: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    settings = Settings.model_validate(changes)
    if needs:
        with pytest.raises(ConfigurationError, match="vlibrary keys create"):
            require_a_key(settings, database)
        keys("create", "admin", "--scope", "admin")
    require_a_key(settings, database)


def test_api_and_worker_need_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLIBRARY_WORKER_SECRET", raising=False)
    with pytest.raises(ConfigurationError, match="VLIBRARY_WORKER_SECRET"):
        require_worker_secret(read_settings())
    monkeypatch.setenv("VLIBRARY_WORKER_SECRET", "long and random")
    require_worker_secret(read_settings())


def test_migrate_can_be_repeated() -> None:
    for _ in range(2):
        result = CliRunner().invoke(build(), ["migrate"])
        assert result.exit_code == 0, result.output
        assert "revision" in result.stdout
