"""Writes this machine's pip configuration for a build, and prints what to mount for it.

`python host_pip.py FILE` writes FILE and prints `--volume` options for every folder and file of
this machine that the configuration names.
"""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOUNTED_CERTIFICATES = "/mnt/host/certificates.crt"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def configuration() -> dict[str, str]:
    """Options of pip that hold here; the environment wins, as it does for pip."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name.rpartition(".")[2].replace("_", "-")] = value.strip("'\"")
    for name, value in os.environ.items():
        if name.startswith("PIP_"):
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return {name: " ".join(value.replace("\\n", " ").split()) for name, value in found.items()}


def local_paths(value: str) -> list[Path]:
    """The folders and files of this machine that an option's value names."""
    paths = []
    for word in value.split():
        # The pages of an index in a folder name files beside the folder.
        path = Path(unquote(urlsplit(word).path)).parent if word.startswith("file:") else Path(word)
        if path.is_absolute() and path.exists():
            paths.append(path)
    return paths


def main(target: Path) -> None:
    """Write the configuration and print the options."""
    options = configuration()
    options.pop("cert", None)
    mounts = {str(path): str(path) for value in options.values() for path in local_paths(value)}
    if CERTIFICATES.exists():
        # At another place than the build's own, which its package manager replaces.
        options["cert"] = MOUNTED_CERTIFICATES
        mounts[str(CERTIFICATES)] = MOUNTED_CERTIFICATES
    lines = [f"{name} = {value}" for name, value in options.items()]
    target.write_text("\n".join(["[global]", *lines, ""]))
    print(" ".join(f"--volume {source}:{place}:ro" for source, place in mounts.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
