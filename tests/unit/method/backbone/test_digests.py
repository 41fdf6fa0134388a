"""Files are digested whole, and large ones once."""

import os
from pathlib import Path

import pytest

from app.method.backbone.checkpoint import digests
from app.method.backbone.checkpoint.digests import LEAF_BYTES, digest_of_file, digest_of_files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LEAST_CACHED_BYTES", 1000)
    return tmp_path / "cache" / "vlibrary" / digests.CACHE_NAME


def write(path: Path, *, size: int, changed: int | None = None) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        if changed is not None:
            file.seek(changed)
            file.write(b"\1")


@pytest.mark.parametrize("place", [0, LEAF_BYTES - 1, LEAF_BYTES, 3 * LEAF_BYTES + 17])
def test_any_byte_counts(tmp_path: Path, place: int) -> None:
    size = 3 * LEAF_BYTES + 18
    found = set()
    for changed in (None, place):
        write(tmp_path / "model.safetensors", size=size, changed=changed)
        found.add(digest_of_files(tmp_path))
    assert len(found) == 2


def test_names_and_sizes_count(tmp_path: Path) -> None:
    found = {digest_of_files(tmp_path)}
    for name, size in (("a.safetensors", 10), ("a.safetensors", 11), ("b.safetensors", 11)):
        write(tmp_path / name, size=size)
        found.add(digest_of_files(tmp_path))
    write(tmp_path / "other.bin", size=5)
    assert digest_of_files(tmp_path) in found
    assert len(found) == 4


def test_what_is_known_is_not_read_again(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a"
    write(path, size=2000)
    wanted = digest_of_file(path)
    (identity,) = digests._read(cache)
    digests._write(cache, {identity: "from the cache"})
    assert digest_of_file(path) == "from the cache"

    write(path, size=2000, changed=1000)
    times = path.stat()
    changed = digest_of_file(path)
    assert changed not in {wanted, "from the cache"}
    # Whoever sets the time of change back does not get the old digest.
    write(path, size=2000, changed=1001)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest_of_file(path) not in {wanted, changed}
    assert len(digests._read(cache)) == 3


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path, content: str) -> None:
    write(tmp_path / "a", size=2000)
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    found = digest_of_file(tmp_path / "a")
    assert list(digests._read(cache).values()) == [found]


def test_where_nothing_can_be_kept_it_is_computed(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "a", size=2000)
    cache.parent.parent.write_text("no folder")
    assert digest_of_file(tmp_path / "a") == digest_of_file(tmp_path / "a")
