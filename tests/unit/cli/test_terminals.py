"""Whatever takes the output of a command, nothing of it is lost unsaid."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table

from app.cli.console import accept_every_text, plain_console, print_table, show_table
from app.cli.library import asking
from app.library.backups.files import writing_backup
from app.postgres.server import EmbeddedPostgres
from vlibrary_client.calls.requests import replace_file

FULL = Path("/dev/full")
# A command of its own, so that only what takes its words is tried.
SCRIPT = (
    "import sys; from app.cli import app; from app.cli.console import print_table\n"
    "def said():\n"
    "    {}\n"
    "app.COMMANDS['gc'] = said; sys.argv = ['vlibrary', 'gc']; app.main()\n"
)


def run(
    statement: str, *, through: str = '"$@"', **environment: str
) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # noqa: TID251 - the test is about it
    return subprocess.run(  # noqa: S603 - our own script
        ["/bin/bash", "-o", "pipefail", "-c", through, "bash", sys.executable, "-c",
         SCRIPT.format(statement)],
        capture_output=True, text=True, check=False, env={**inherited, **environment},
    )  # fmt: skip


@pytest.fixture
def table() -> Table:
    shown = Table("one", "two", "three", "four", "five", "six", "seven")
    shown.add_row(*map(str, range(7)))
    return shown


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """As on a full disk: longer files cannot be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
@pytest.mark.parametrize("statement", ["print({0!a})", "print_table([{0!a}], [[{0!a}]])"])
def test_what_an_encoding_has_no_sign_for_is_written_as_its_number(
    encoding: str, statement: str
) -> None:
    found = run(statement.format("→☃"), PYTHONIOENCODING=f"{encoding}:strict")
    assert (found.returncode, found.stderr) == (0, "")
    assert ("→☃" if encoding == "utf-8" else r"\u2192\u2603") in found.stdout


@pytest.mark.parametrize("buffering", ["", "1"])
def test_a_disk_without_room_for_the_results_is_one_line(buffering: str) -> None:
    found = run("print('x')", through=f'"$@" > {FULL}', PYTHONUNBUFFERED=buffering)
    assert found.returncode == 1
    assert found.stderr == "vlibrary: No space left on device\n"


@pytest.mark.parametrize("buffering", ["", "1"])
def test_a_reader_who_has_seen_enough_is_no_fault(buffering: str) -> None:
    found = run(
        "[print('x' * 10_000) for _ in range(100)]",
        through='"$@" | head -n 1',
        PYTHONUNBUFFERED=buffering,
    )
    assert found.stdout == "x" * 10_000 + "\n"
    assert found.stderr == ""


@pytest.mark.parametrize("closed", ["1", "2", "0,1", "0,1,2"])
def test_a_stream_that_is_closed_is_no_fault(closed: str) -> None:
    through = '"$@" ' + " ".join(f"{number}>&-" for number in closed.split(","))
    found = run("print('x'); print('y', file=sys.stderr)", through=through)
    assert found.returncode == 0
    assert found.stdout == ("" if "1" in closed else "x\n")
    assert found.stderr == ("" if "2" in closed else "y\n")


@pytest.mark.parametrize("columns", ["20", "1", "80", "400"])
def test_a_narrow_terminal_loses_nothing_of_a_table(
    columns: str,
    *,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    show_table(table)
    found = capsys.readouterr().out
    assert all(word in found for word in ("one", "seven", " 0 ", " 6 "))


def test_a_terminal_without_a_known_width_is_like_any(
    table: Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    accept_every_text()
    assert plain_console().width == 80
    show_table(table)
    assert "seven" in capsys.readouterr().out


ROWS = [
    (f"{number:036x}", "train", "a-long-name-of-a-vector@12", "running 20/600", note)
    for number, note in enumerate(
        ("", "two words and more until no line of 80 is long enough " * 4)
    )
]


@pytest.mark.parametrize("columns", ["20", "80", "400"])
def test_a_row_of_a_list_is_a_line_up_to_its_last_cell(
    columns: str, *, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(("id", "kind", "vector", "state", "note"), ROWS)
    head, first, second, *rest = capsys.readouterr().out.splitlines()
    assert first.split() == " ".join(ROWS[0]).split()
    assert second.split()[: len(first.split())] == " ".join(ROWS[1][:4]).split()
    assert " ".join([*second.split()[5:], *" ".join(rest).split()]) == ROWS[1][4].strip()
    assert head.split()[0] == "id"
    assert max(map(len, (head, *rest))) <= max(int(columns), len(first) + 22)


def test_a_pipe_gets_a_line_of_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "kind", "vector", "state", "note"), ROWS)
    found = capsys.readouterr().out.splitlines()
    assert [line.split() for line in found[1:]] == [" ".join(row).split() for row in ROWS]
    assert [line for line in found if line.endswith(" ")] == []


def test_texts_of_others_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "[red]a[/b] :key:"
    print_table(("[bold]x",), [[odd]])
    found = capsys.readouterr().out
    assert odd in found
    assert "[bold]x" in found


def test_texts_of_others_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f\b\r"
    print_table((odd,), [[f"one\n{odd}\ttwo"]])
    found = run(f"from app.core.errors import ConflictError; raise ConflictError({odd!r})")
    assert found.returncode == 1
    for text in (capsys.readouterr().out, found.stderr):
        assert {sign for sign in text if not sign.isprintable()} == {"\n"}
        assert r"\x1b]0;title\x07\x1b[2J\x9b31m\x7f\x08\x0d" in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_answer_does_nothing_to_a_terminal_and_is_whole_elsewhere(
    is_terminal: bool,  # noqa: FBT001 - a parameter
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = "a\n\x1b]0;b\x07c"
    answer = SimpleNamespace(text=odd, applied=[], notes=[odd], retrieval=None)
    steering = SimpleNamespace(generate=lambda *_, **__: answer)
    server = SimpleNamespace(steer=steering)
    monkeypatch.setattr(asking, "connected", lambda *_: nullcontext(server))
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    asking.steer("What?", image=None, vector=None, max_tokens=1, temperature=0.0)
    found = capsys.readouterr()
    assert ("\x1b" in found.out) is not is_terminal
    assert is_terminal or found.out == f"{odd}\n"
    assert "\x1b" not in found.err


def test_a_file_that_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "vector.safetensors"
    path.write_bytes(b"before")
    with no_file_above(1000), pytest.raises(OSError, match="File too large"):
        replace_file(path, bytes(2000))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_a_backup_without_room_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    def back_up() -> None:
        with writing_backup(tmp_path / name) as writer:
            writer.scratch.write_bytes(bytes(900))
            writer._store("one")
            writer.scratch.write_bytes(bytes(2000))

    with no_file_above(1000), pytest.raises(OSError, match="File too large"):
        back_up()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_keep_a_server_from_ending(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    with closing(FULL.open("r+b", buffering=0)) as full:
        server._lock = os.dup(full.fileno())
        server.stop()
    assert server._lock is None


def test_a_backbone_that_is_loaded_draws_no_bar_into_a_pipe() -> None:
    found = run(
        "from app.method.backbone.loading import load_backbone; "
        "print(load_backbone('pocket', device='cpu').name)"
    )
    assert (found.stdout, found.stderr, found.returncode) == ("pocket\n", "", 0)
