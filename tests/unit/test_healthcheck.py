"""The health check of the images, which asks the container itself whatever else is set."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "healthcheck.py"


class _Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()


@pytest.mark.parametrize(("path", "status"), [("readyz", 0), ("health", 1)])
def test_no_proxy_is_asked_for_the_container_itself(path: str, status: int) -> None:
    """Docker sets those of its client's configuration in every container."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = subprocess.run(  # noqa: S603 - our own
            [sys.executable, SCRIPT, f"http://127.0.0.1:{server.server_port}/{path}"],
            env={"http_proxy": "http://127.0.0.1:9"},
            check=False,
        )
        server.shutdown()
    assert found.returncode == status
