import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.core.errors import InvalidImageError
from app.core.settings import Settings
from app.worker.serving.images import ImageLimits, open_image

LIMITS = ImageLimits(max_bytes=100_000, max_pixels=10_000, min_side=8, max_side=500, max_aspect=20)


def _file(size: tuple[int, int], *, kind: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 120 if mode == "L" else None).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_three_formats_come_out_in_rgb(kind: str, mode: str) -> None:
    image = open_image(_file((20, 10), kind=kind, mode=mode), limits=LIMITS)
    assert (image.mode, image.size) == ("RGB", (20, 10))


def test_transparency_is_dropped() -> None:
    assert open_image(_file((9, 9), mode="RGBA"), limits=LIMITS).mode == "RGB"


@pytest.mark.parametrize("size", [(7, 20), (1, 1), (501, 10), (101, 100), (8, 200)])
def test_sizes_beyond_the_limits_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidImageError):
        open_image(_file(size), limits=LIMITS)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(InvalidImageError, match="PNG, JPEG or WebP"):
        open_image(_file((20, 20), kind=kind), limits=LIMITS)


def test_a_bomb_is_refused_by_its_header() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
    with pytest.raises(InvalidImageError):
        open_image(bomb, limits=LIMITS)


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="100000 bytes"):
        open_image(b"\0" * 100_001, limits=LIMITS)


@given(cut=st.integers(0, 200), noise=st.binary(max_size=40))
def test_damaged_files_are_refused_without_being_quoted(cut: int, noise: bytes) -> None:
    data = _file((20, 20))
    damaged = data[: cut % len(data)] + noise
    outcome = _outcome(damaged)
    assert outcome in {"Not a readable PNG, JPEG or WebP image", "RGB (20, 20)"} or (
        "pixels" in outcome
    )


def _outcome(data: bytes) -> str:
    try:
        image = open_image(data, limits=LIMITS)
    except InvalidImageError as error:
        return error.message
    return f"{image.mode} {image.size}"


def test_the_limits_are_those_of_the_settings() -> None:
    limits = ImageLimits.of(Settings(max_image_pixels=4321, min_image_side=5))
    assert (limits.max_pixels, limits.min_side) == (4321, 5)
