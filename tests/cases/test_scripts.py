"""Scripts that ask a running service and exit 0 when all is right: those in `VLIBRARY_CASES`.

They read the service's address from `VLIB_URL`, and what some need besides from other variables. A
script whose name begins with `make_` makes a backbone for others. How each ended stands in a table
at the end; what a later decision has made wrong in some of them stands in `outdated`.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.cases.conftest import WORKER_SECRET
from tests.cases.outdated import OUTDATED, with_names_of_today
from tests.fakes.servers.installation import Installation, descendants
from tests.fakes.servers.proxies import proxied

pytestmark = pytest.mark.cases

FOLDER = Path(os.environ.get("VLIBRARY_CASES", "nowhere")).resolve()  # noqa: TID251 - the scripts
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if not path.name.startswith("make_"))
SECONDS = 900.0
# Many trainings, or many starts of services.
LONGER = {
    "s9_upload_takes_what_training_refuses.py": 2400.0,
    "34_small_shared_memory.py": 1500.0,
    "35b_owner_killed_again_and_again.py": 1500.0,
}
# Scripts about a backbone of their own, and the words that make it.
BACKBONES = {
    "16_stop_texts.py": ["make_chain_backbone.py"],
    "17_infinite_logprobs.py": ["make_chain_backbone.py", "inf"],
}
# Requests that wait: with the script's own 120 the last would wait for longer than a request may,
# where processors are slow.
VARIABLES = {"12_stream_survives_waiting.py": {"WAITING": "24"}}
BEHIND_CADDY = "14b_caddy_gzip_lumps.py"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run(
    script: Path, *words: str, folder: Path, variables: Mapping[str, str] = {}
) -> tuple[int, str]:
    """The exit status and what the script said; it has ended, with all that it started.

    What it writes where it works stays in the folder.
    """
    ports = {"VLIB_PORT": free_port(), "VLIB_SECOND_PORT": free_port()}
    process = subprocess.Popen(  # noqa: S603 - scripts that whoever runs the tests has chosen
        [sys.executable, "-u", str(script), *words],
        cwd=folder,
        env={**os.environ, **ports, **variables},  # noqa: TID251 - what this test runs in
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = LONGER.get(script.name, SECONDS)
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        said, _ = process.communicate()
        said += f"\nended after {limit:g} s"
    sys.stdout.write(said)
    return process.returncode, said


@pytest.fixture
def installation(request: pytest.FixtureRequest, script: str) -> Iterator[Installation]:
    """The service for all cases, or one with the backbone that the script is about."""
    if script not in BACKBONES:
        service: Installation = request.getfixturevalue("service")
        if not service.is_running:
            service.start().close()
        yield service
        return
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-cases-", dir="/tmp"))
    folder.chmod(0o711)
    maker, *words = BACKBONES[script]
    status, said = run(FOLDER / maker, str(folder / "backbone"), *words, folder=folder)
    assert status == 0, said
    (folder / "data").mkdir(mode=0o711)
    own = Installation(folder / "data", folder / "backbone")
    try:
        own.start().close()
        yield own
    finally:
        own.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def variables(
    installation: Installation, worker_port: int, *, script: str, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """Where the script finds what it asks."""
    found = {
        "VLIB_URL": installation.url,
        "VLIB_DATA": str(installation.folder),
        "VLIB_WORKER_URL": f"http://127.0.0.1:{worker_port}",
        "VLIB_WORKER_SECRET": WORKER_SECRET,
    }
    found |= VARIABLES.get(script, {})
    with ExitStack() as stack:
        if script == BEHIND_CADDY:
            proxy = proxied("caddy", installation.url, tmp_path / "caddy")
            found["VLIB_PROXY"] = stack.enter_context(proxy)
        yield found


@pytest.fixture
def path(script: str, tmp_path: Path) -> Path:
    return with_names_of_today(FOLDER / script, tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_finds_all_right(
    path: Path,
    variables: Mapping[str, str],
    *,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("script", path.name)
    status, said = run(path, folder=tmp_path, variables=variables)
    if status == 0:
        record_property("ended", "passed")
        return
    wrong = [line for line in said.splitlines() if line.startswith("WRONG")]
    outdated = OUTDATED.get(path.name)
    assert outdated is not None, said
    # It has come to its end, and calls nothing else wrong.
    assert said.splitlines()[-1] == f"{len(wrong)} wrong", said
    assert [line for line in wrong if not outdated.wants(line)] == [], said
    record_property("ended", f"superseded: {outdated.reason}")
