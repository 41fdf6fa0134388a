"""Digests of files' whole contents, computed once for each file as it is.

Files of tens of gigabytes are read once, in parallel, and not again while nothing says that they
were written to: device, inode, size and both times of change.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from app.core.errors import ConfigurationError
from app.core.folders import default_cache_dir
from app.core.telemetry.logs import get_logger

LEAF_BYTES: Final = 8 * 1024 * 1024
# Reading less again costs nothing.
LEAST_CACHED_BYTES: Final = 64 * 1024 * 1024
MOST_CACHED: Final = 1_000
NUM_THREADS: Final = 8
CACHE_NAME: Final = "digests.json"

log = get_logger(__name__)


def digest_of_files(folder: Path) -> str:
    """A digest of the names and the whole contents of the safetensors files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{path.stat().st_size}:{digest_of_file(path)}\n".encode())
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 over the SHA-256 of every 8 MiB of the file; remembered for a large one."""
    status = path.stat()
    if status.st_size < LEAST_CACHED_BYTES:
        return _tree_digest(path, status.st_size)
    try:
        cache = default_cache_dir() / CACHE_NAME
    except ConfigurationError:
        return _tree_digest(path, status.st_size)
    place, times = (status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_ctime_ns)
    identity = ":".join(map(str, (*place, status.st_size, *times)))
    known = _read(cache)
    if identity not in known:
        known = {**_read(cache), identity: _tree_digest(path, status.st_size)}
        _write(cache, known)
    return known[identity]


def _tree_digest(path: Path, size: int) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="digest") as threads:
            leaves = threads.map(
                lambda start: hashlib.sha256(os.pread(descriptor, LEAF_BYTES, start)).digest(),
                range(0, size, LEAF_BYTES),
            )
            return hashlib.sha256(b"".join(leaves)).hexdigest()
    finally:
        os.close(descriptor)


def _read(cache: Path) -> dict[str, str]:
    try:
        found = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(identity): str(digest) for identity, digest in found.items()}


def _write(cache: Path, known: Mapping[str, str]) -> None:
    """Remembers the latest digests; where that is not possible, they are computed again."""
    latest = dict(list(known.items())[-MOST_CACHED:])
    written = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(latest))
        written.replace(cache)
    except OSError as error:
        log.warning("digest not kept", action="digest.keep", error=type(error).__name__)
