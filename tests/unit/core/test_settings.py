import os
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.cli.processes.environments import child_environment
from app.core import version
from app.core.errors import ConfigurationError
from app.core.folders import ROOT_DATA_DIR, default_cache_dir, default_data_dir
from app.core.settings import MEBIBYTE, Settings
from app.core.version import UNKNOWN, software_version


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):  # noqa: TID251 - the test is about the environment
        if name.startswith("VLIBRARY_") or name == "DATABASE_URL":
            monkeypatch.delenv(name)


def test_the_defaults_are_one_laptop() -> None:
    settings = Settings()
    assert settings.host == settings.worker_host == "127.0.0.1"
    assert settings.database_url is None
    assert settings.workers == ()
    assert settings.backbone == "pocket"
    assert settings.postgres_dir == settings.data_dir / "postgres"


def test_workers_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLIBRARY_WORKERS", "http://a:8001, http://b:8001/,")
    assert Settings().workers == ("http://a:8001", "http://b:8001")


@pytest.mark.parametrize("name", ["PORT", "WORKERS", "DATABASE_URL", "REQUIRE_KEYS", "DATA_DIR"])
def test_a_setting_set_to_nothing_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"VLIBRARY_{name}", "")
    found = Settings()
    assert name.lower() not in found.model_fields_set
    assert found == Settings.model_validate({})


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "{}\r"])
def test_what_files_put_around_a_value_is_no_part_of_it(
    around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PORT", "8111"), ("WORKER_SECRET", "hidden"), ("DTYPE", "float32")):
        monkeypatch.setenv(f"VLIBRARY_{name}", around.format(value))
    found = Settings()
    assert (found.port, found.dtype) == (8111, "float32")
    assert found.worker_secret is not None
    assert found.worker_secret.get_secret_value() == "hidden"


@pytest.mark.parametrize("name", ["HOST", "DATA_DIR", "WORKER_SECRET", "PORT", "BACKBONE"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_around_a_value_are_refused(
    name: str, quote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"VLIBRARY_{name}", f"{quote}8111{quote}")
    with pytest.raises(ValidationError, match="quotes"):
        Settings()


@pytest.mark.parametrize("name", ["data_dir", "pg_bin", "backbone"])
def test_a_tilde_is_the_home(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"VLIBRARY_{name.upper()}", "~/mine")
    assert str(getattr(Settings(), name)) == str(Path.home() / "mine")
    with pytest.raises(ValidationError, match="home that ~ stands for"):
        Settings.model_validate({name: "~nobody-of-this-name/mine"})


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="54321: set HOME or VLIBRARY_DATA_DIR"):
        Settings()
    with pytest.raises(ConfigurationError, match="set HOME or XDG_CACHE_HOME"):
        default_cache_dir()
    monkeypatch.setenv("VLIBRARY_DATA_DIR", "/data")
    assert Settings().data_dir == Path("/data")


def test_the_policy_is_a_list_of_references_with_strengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLIBRARY_POLICY_VECTORS", "safety@prod = -0.5, other@2,")
    found = [(item.ref, item.strength) for item in Settings().policy_vectors]
    assert found == [("safety@prod", -0.5), ("other@2", 1.0)]


@pytest.mark.parametrize("name", ["VLIBRARY_DATABASE_URL", "DATABASE_URL"])
def test_the_database_url_has_two_names_and_stays_secret(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "postgresql://me:hidden@db/x")
    settings = Settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://me:hidden@db/x"
    assert "hidden" not in repr(settings)


def test_objects_lie_below_the_data_unless_set(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).objects_url == (tmp_path / "objects").as_uri()
    assert Settings(object_store="s3://bucket/x").objects_url == "s3://bucket/x"


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_image_side": 100, "max_image_side": 50},
        {"min_image_side": 5000, "max_image_pixels": 100},
        {"port": 8001},
        {"port": 0},
        {"host": ""},
        {"worker_host": ""},
        {"workers": "ftp://a"},
        {"workers": "http://"},
        {"policy_vectors": "UPPER"},
        {"policy_vectors": "a="},
        {"policy_vectors": "a=nan"},
        {"policy_vectors": "a=11"},
        {"policy_vectors": "a,b,c,d,e,f,g,h,i"},
        {"policy_vectors": "a,a"},
        {"policy_vectors": "a@1=0.5,b,a@1=-0.5"},
        {"object_store": "/plain/path"},
        {"training_share": 0},
        {"device": ""},
        {"retrieval_margin": float("nan")},
        {"allowed_hosts": "https://library.example.com"},
        {"allowed_hosts": "library.example.com:8443"},
        {"allowed_hosts": "*example.com"},
    ],
)
def test_contradictions_are_refused_at_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_hosts_are_names_of_any_kind() -> None:
    hosts = "example.com, *.example.com, [::1], *"
    assert Settings(allowed_hosts=hosts).allowed_hosts == tuple(hosts.split(", "))


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]  # that is what must fail


def test_root_keeps_data_where_others_can_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == ROOT_DATA_DIR
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/me/data")
    assert default_data_dir() == Path("/home/me/data/vlibrary")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_data_dir() == Path.home() / ".local/share/vlibrary"


def test_a_child_gets_this_environment_with_replaced_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLIBRARY_PORT", "9000")
    monkeypatch.setenv("OTHER", "kept")
    found = child_environment({"port": "9001", "worker_host": "h"})
    assert (found["VLIBRARY_PORT"], found["VLIBRARY_WORKER_HOST"]) == ("9001", "h")
    assert found["OTHER"] == "kept"


def test_the_version_is_known_or_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", lambda _name: "1.2.3")
    assert software_version() == "1.2.3"
    monkeypatch.setattr(version, "version", missing)
    assert software_version() == UNKNOWN


def test_the_operations_page_tells_of_every_setting() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("| setting (`VLIBRARY_...`)")[2].partition("\n\n")[0]
    firsts = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    told = [name.lower() for first in firsts for name in re.findall(r"`(\w+)`", first)]
    assert sorted(told) == sorted(Settings.model_fields)
    for line in table.splitlines()[2:]:
        names, defaults, *_ = line.split(" | ")
        named = [name.lower() for name in re.findall(r"`(\w+)`", names)]
        found = [Settings.model_fields[name].default for name in named]
        if all(isinstance(default, str | int | float) for default in found):
            assert ", ".join(map(as_told, found)) == defaults.partition(" (")[0], line


def as_told(default: object) -> str:
    match default:
        case bool():
            return str(default).lower()
        case str():
            return f"`{default}`"
        case int() if default % MEBIBYTE == 0:
            size = default // MEBIBYTE
            return f"{size} MiB" if size % 1024 else f"{size // 1024} GiB"
        case int() if default % 1_000_000 == 0:
            return f"{default // 1_000_000} million"
    return f"{default:g}"
