import json

import psycopg
import pytest

from app.core.errors import JSON, ConfigurationError
from app.library.database import conninfo, database_url, dump_json, with_options


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"]
)
def test_every_postgres_url_gets_our_driver(scheme: str) -> None:
    url = database_url(f"{scheme}://me:pass%40word@db:5433/library")
    assert url.drivername == "postgresql+psycopg"
    assert (url.password, url.port, url.database) == ("pass@word", 5433, "library")


@pytest.mark.parametrize(
    "url", ["", "nonsense", "postgresql://db:port/x", "mysql://db/x", "sqlite:///file"]
)
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        database_url(url)


def test_a_refusal_does_not_repeat_the_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        database_url("mysql://me:hidden@db/x")
    assert "hidden" not in str(caught.value)


def test_psycopg_reads_the_same_database() -> None:
    found = psycopg.conninfo.conninfo_to_dict(
        conninfo("postgresql+psycopg://me:p%40ss@/library?host=%2Fa+b%2Frun&port=5432")
    )
    assert found["host"] == "/a b/run"
    assert (found["user"], found["password"], found["dbname"]) == ("me", "p@ss", "library")


def test_psycopg_reads_several_hosts_as_sqlalchemy_writes_them() -> None:
    found = psycopg.conninfo.conninfo_to_dict(
        conninfo("postgresql://me@/library?host=one:5432&host=two:5433")
    )
    assert (found["host"], found["port"]) == ("one,two", "5432,5433")


def test_a_server_that_has_vanished_is_noticed_within_a_minute() -> None:
    found = psycopg.conninfo.conninfo_to_dict(conninfo("postgresql://me@db/library"))
    idle, interval, count, unsent = (
        int(str(found[name]))
        for name in (
            "keepalives_idle",
            "keepalives_interval",
            "keepalives_count",
            "tcp_user_timeout",
        )
    )
    assert idle + interval * count <= 60
    assert unsent <= 60_000
    assert with_options("postgresql://me@db/library", "-c a=b").query["keepalives_idle"] == "30"
    own = psycopg.conninfo.conninfo_to_dict(conninfo("postgresql://db/x?keepalives_idle=600"))
    assert own["keepalives_idle"] == "600"


def test_what_jsonb_refuses_is_replaced() -> None:
    dirty: dict[str, JSON] = {
        "a\0": [float("nan"), float("inf"), 1.5],
        "b": ("x\0y", "\ud800"),
        "c": {"d": None},
    }
    assert json.loads(dump_json(dirty)) == {
        "a": [None, None, 1.5],
        "b": ["xy", "?"],
        "c": {"d": None},
    }


def test_ordinary_values_stay_as_they_are() -> None:
    value: dict[str, JSON] = {
        "text": "zażółć 🦊",
        "true": True,
        "number": 3,
        "list": [1, 2.5, None],
    }
    assert json.loads(dump_json(value)) == value
