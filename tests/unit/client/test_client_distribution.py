"""What `pip install ./vlibrary_client` brings."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
SERVER_ONLY = {"torch", "fastapi", "sqlalchemy", "faiss-cpu", "transformers", "uvicorn"}


def test_the_client_alone_is_a_distribution_without_the_server(tmp_path: Path) -> None:
    # A build writes beside its sources.
    source = tmp_path / "vlibrary_client"
    shutil.copytree(ROOT / "vlibrary_client", source, ignore=shutil.ignore_patterns("__pycache__"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir")
    done = subprocess.run(  # noqa: S603 - our own source
        [sys.executable, "-m", "pip", "wheel", *options, str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("vlibrary_client-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("METADATA"))
        required = {
            line.removeprefix("Requires-Dist: ").partition(">")[0]
            for line in archive.read(metadata).decode().splitlines()
            if line.startswith("Requires-Dist: ") and "extra ==" not in line
        }
    packages = {name.partition("/")[0] for name in names if "dist-info" not in name}
    assert packages == {"vlibrary_client"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "vlibrary_client").rglob("*.py")}
    assert modules | {"vlibrary_client/py.typed"} <= set(names)
    assert required == {"httpx", "httpx-sse", "pillow", "pyarrow", "pydantic", "rich"}
    assert not required & SERVER_ONLY


def test_both_distributions_want_the_same_of_what_they_share() -> None:
    def wanted(path: Path) -> dict[str, str]:
        listed = tomllib.loads(path.read_text())["project"]["dependencies"]
        return {line.partition(">")[0].partition("[")[0]: line for line in listed}

    server = wanted(ROOT / "pyproject.toml")
    client = wanted(ROOT / "vlibrary_client" / "pyproject.toml")
    assert {name: server[name] for name in client} == client
