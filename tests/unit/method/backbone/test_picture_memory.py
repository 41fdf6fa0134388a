"""No data set is ever held decoded, however large its pictures are."""

import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.pictures import Picture, PictureFile
from app.method.backbone.batching import prompt_batches
from app.method.backbone.features import FeatureCache
from app.method.backbone.pictures import KEPT_BYTES
from app.method.backbone.prompts import build_prompt
from app.method.keys.encoder import KeyEncoder
from tests.fakes.models.backbones import tiny_backbone

WIDTH, HEIGHT, COUNT = 5000, 4000, 18
MOST_BYTES = 500 << 20


def large_pictures() -> list[Picture]:
    """Pictures of one colour each: some 20 kB encoded, 60 MB decoded."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress((b"\0" + bytes(WIDTH)) * HEIGHT))
    end = chunk(b"IEND", b"")
    file = PictureFile()
    return [
        file.add(b"\x89PNG\r\n\x1a\n" + head + chunk(b"PLTE", bytes([shade] * 3)) + rows + end)
        for shade in range(COUNT)
    ]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def most_bytes(work: Callable[[], object]) -> int:
    """How much more was resident during the work than before it."""
    before, highest, is_over = resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.01):
            highest.append(resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        is_over.set()
        watcher.join()
    return max(highest) - before


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    assert COUNT * WIDTH * HEIGHT * 3 > 2 * MOST_BYTES
    return large_pictures()


def test_features_of_large_pictures_need_the_memory_of_a_few(pictures: list[Picture]) -> None:
    cache = FeatureCache(tiny_backbone())
    cache.prepare(pictures[:1])
    assert most_bytes(lambda: cache.prepare(pictures)) < MOST_BYTES
    assert all(cache.is_cached(picture) for picture in pictures)


def test_keys_of_large_pictures_need_the_memory_of_a_few(pictures: list[Picture]) -> None:
    encoder = KeyEncoder(FeatureCache(tiny_backbone()))
    encoder.pixel_features(pictures[:1])
    assert most_bytes(lambda: encoder.pixel_features(pictures)) < MOST_BYTES


def test_batches_that_are_read_from_pixels_need_the_memory_of_a_few(
    pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone()
    prompts = [build_prompt(backbone, "Which colour?", (picture,)) for picture in pictures]

    def batches() -> list[list[int]]:
        features = FeatureCache(backbone)
        lengths = [70] * len(prompts)
        return prompt_batches(
            prompts, lengths, features=features, token_budget=10**6, max_rows=len(prompts)
        )

    assert batches() == [list(range(len(prompts)))]
    monkeypatch.setattr("app.method.backbone.features.takes_precomputed", lambda _: False)
    read = batches()
    assert sorted(place for batch in read for place in batch) == list(range(len(prompts)))
    assert max(map(len, read)) == KEPT_BYTES // (WIDTH * HEIGHT * 3)
