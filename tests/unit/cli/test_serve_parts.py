import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
import uvicorn

from app.cli.database import running_database
from app.cli.processes.api import bound_listener
from app.cli.processes.ports import free_port, require_free_port
from app.cli.processes.serve import (
    CODE_FOLDER,
    Signals,
    print_banner,
    programs,
    worker_listener,
)
from app.cli.processes.supervisor import Program
from app.cli.processes.worker import worker
from app.core.errors import ConfigurationError
from app.core.settings import Settings


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDINGS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _settings(**changes: object) -> Settings:
    return Settings.model_validate({"data_dir": "/data", "port": 8321, **changes})


def _programs(settings: Settings, *, listener: socket.socket | None = None) -> list[Program]:
    held, gate = socket.socketpair()
    with held, gate:
        return list(
            programs(settings, database_url="postgresql://db", listener=listener, gate=held)
        )


def _worker(**changes: object) -> Program:
    settings = _settings(**changes)
    with worker_listener(settings) as listener:
        worker, _ = _programs(settings, listener=listener)
    return worker


def test_a_port_in_use_is_a_clear_error(taken: int) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{taken}.*--port"):
        require_free_port("127.0.0.1", taken)


def test_a_foreign_address_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        require_free_port("203.0.113.1", 8000)


def test_the_worker_gets_a_port_that_nobody_else_can_take() -> None:
    with worker_listener(_settings()) as listener:
        port = listener.getsockname()[1]
        listener.listen()
        with pytest.raises(ConfigurationError):
            require_free_port("127.0.0.1", port)
    with worker_listener(_settings(worker_port=port)) as listener:
        assert listener.getsockname()[1] == port


def test_a_set_worker_port_that_is_in_use_is_a_clear_error(taken: int) -> None:
    settings = _settings(worker_port=taken)
    with (
        pytest.raises(ConfigurationError, match=f"127.0.0.1:{taken}.*VLIBRARY_WORKER_PORT"),
        worker_listener(settings),
    ):
        pass


def test_a_free_port_can_be_listened_on(taken: int) -> None:
    found = free_port("127.0.0.1")
    assert found != taken
    require_free_port("127.0.0.1", found)


def test_an_embedded_worker_and_the_api_are_told_of_each_other_and_of_the_database() -> None:
    with worker_listener(_settings()) as listener:
        worker, api = _programs(_settings(), listener=listener)
        assert worker.inherited[0] == listener.fileno()
        assert worker.command[-2:] == ("--listen-fd", str(listener.fileno()))
    assert [one.name for one in (worker, api)] == ["worker", "api"]
    port = worker.environment["VLIBRARY_WORKER_PORT"]
    assert api.environment["VLIBRARY_WORKERS"] == f"http://127.0.0.1:{port}"
    for program in (worker, api):
        assert program.environment["VLIBRARY_DATABASE_URL"] == "postgresql://db"
        assert program.environment["VLIBRARY_DATA_DIR"] == "/data"
        assert program.environment["PATH"]
        assert program.folder == CODE_FOLDER
    assert (CODE_FOLDER / "app" / "__main__.py").exists()


def test_a_worker_begins_when_there_is_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLIBRARY_DATABASE_URL", "postgresql://db")
    monkeypatch.setenv("VLIBRARY_WORKER_SECRET", "s" * 32)
    begun = Event()
    monkeypatch.setattr("app.worker.process.run", lambda *_, **__: begun.set())
    gate, held = socket.socketpair()
    thread = Thread(target=worker, kwargs={"wait_fd": held.detach()})
    with gate:
        thread.start()
        assert not begun.wait(0.5)
    assert begun.wait(60)
    thread.join()


def test_workers_elsewhere_are_used_and_none_is_started() -> None:
    settings = _settings(workers="http://a:1,http://b:2")
    (api,) = _programs(settings)
    assert api.environment["VLIBRARY_WORKERS"] == "http://a:1,http://b:2"


def test_a_relative_backbone_folder_is_passed_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _worker(backbone="mine").environment["VLIBRARY_BACKBONE"] == str(tmp_path / "mine")
    assert _worker(backbone="pocket").environment["VLIBRARY_BACKBONE"] == "pocket"


def test_jobs_of_a_dead_worker_are_taken_up_soon_unless_set_otherwise() -> None:
    assert _worker().environment["VLIBRARY_JOB_STALLED_SECONDS"] == "15.0"
    otherwise = _worker(job_stalled_seconds=77).environment
    assert otherwise.get("VLIBRARY_JOB_STALLED_SECONDS") != "15.0"


class _Answer(BaseHTTPRequestHandler):
    status = 503

    def do_GET(self) -> None:
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


def test_a_part_is_ready_when_it_answers_ok() -> None:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        (api,) = _programs(
            _settings(port=server.server_port, host="127.0.0.1", workers="http://a:1")
        )
        Thread(target=server.serve_forever, daemon=True).start()
        assert not api.is_ready()
        _Answer.status = 200
        assert api.is_ready()
        server.shutdown()
    assert not api.is_ready()


@pytest.mark.parametrize("number", ENDINGS)
def test_signals_interrupt_at_first_and_are_noted_later(
    number: signal.Signals, handlers: None
) -> None:
    assert handlers is None
    signals = Signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    signals = Signals()
    signals.note()
    assert not signals.should_exit()
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.should_exit()
    assert not signals.force_exit()
    os.kill(os.getpid(), number)
    assert signals.force_exit()


def test_what_nohup_ignores_stays_ignored(handlers: None) -> None:
    assert handlers is None
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = Signals()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not signals.should_exit()


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:8321"), ("::1", "http://[::1]:8321")]
)
def test_the_banner_says_where_it_is(
    host: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_banner(_settings(host=host))
    assert capsys.readouterr().out.startswith(f"VLibrary is ready at {url}\n")


def test_a_configured_database_is_migrated_and_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upgraded: list[str] = []
    monkeypatch.setattr("app.library.migrate.upgrade", upgraded.append)
    with running_database(_settings(database_url="postgresql://db")) as database:
        database.restart_if_ended()
        assert database.url == "postgresql://db"
    assert upgraded == ["postgresql://db"]


def test_a_folder_named_app_where_the_user_is_does_not_take_our_place(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('the wrong app')")
    worker = _worker()
    found = subprocess.run(  # noqa: S603 - our own command line
        [*worker.command, "--help"],
        cwd=worker.folder,
        env=dict(worker.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert worker.command[0] == sys.executable


def test_answers_do_not_wait_for_acknowledgements() -> None:
    settings = Settings(port=free_port("127.0.0.1"))
    config = uvicorn.Config("nothing:app", host="127.0.0.1", port=settings.port)
    with bound_listener(config, settings) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
