"""Scripts that ask a running service and exit 0 when all is right: those in `VLIBRARY_CASES`.

They read the service's address from `VLIB_URL`, and what some need besides from other variables. A
script whose name begins with `make_` makes a backbone for others.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.servers.installation import Installation
from tests.fakes.servers.proxies import proxied

pytestmark = pytest.mark.cases

FOLDER = Path(os.environ.get("VLIBRARY_CASES", "nowhere"))  # noqa: TID251 - where scripts are
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if not path.name.startswith("make_"))
SECONDS = 900.0
# Scripts about a backbone of their own, and the words that make it.
BACKBONES = {
    "16_stop_texts.py": ["make_chain_backbone.py"],
    "17_infinite_logprobs.py": ["make_chain_backbone.py", "inf"],
}
BEHIND_CADDY = "14b_caddy_gzip_lumps.py"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run(script: str, *words: str, variables: Mapping[str, str] = {}) -> None:
    ports = {"VLIB_PORT": free_port(), "VLIB_SECOND_PORT": free_port()}
    done = subprocess.run(  # noqa: S603 - scripts that whoever runs the tests has chosen
        [sys.executable, str(FOLDER / script), *words],
        env={**os.environ, **ports, **variables},  # noqa: TID251 - what this test runs in
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture
def installation(request: pytest.FixtureRequest, script: str) -> Iterator[Installation]:
    """The service for all cases, or one with the backbone that the script is about."""
    if script not in BACKBONES:
        yield request.getfixturevalue("service")
        return
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-cases-", dir="/tmp"))
    folder.chmod(0o711)
    maker, *words = BACKBONES[script]
    run(maker, str(folder / "backbone"), *words)
    (folder / "data").mkdir(mode=0o711)
    own = Installation(folder / "data", folder / "backbone")
    try:
        own.start().close()
        yield own
    finally:
        own.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_finds_all_right(script: str, installation: Installation, tmp_path: Path) -> None:
    variables = {"VLIB_URL": installation.url, "VLIB_DATA": str(installation.folder)}
    with ExitStack() as stack:
        if script == BEHIND_CADDY:
            proxy = proxied("caddy", installation.url, tmp_path / "caddy")
            variables["VLIB_PROXY"] = stack.enter_context(proxy)
        run(script, variables=variables)
