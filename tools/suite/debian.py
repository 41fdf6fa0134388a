"""Files of Debian's packages, unpacked below a folder; nothing of a package is ever run."""

import subprocess
from pathlib import Path


def unpack(package: str, folder: Path) -> Path:
    """Where the package's files lie, downloaded where they are missing."""
    target = folder / package
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)  # noqa: S603, S607 - fixed names; apt-get is the one on the caller's PATH
        (archive,) = folder.glob(f"{package}_*.deb")
        fresh = folder / f"{package}.new"
        subprocess.run(["dpkg-deb", "-x", archive, fresh], check=True)  # noqa: S603, S607
        fresh.rename(target)
        archive.unlink()
    return target
