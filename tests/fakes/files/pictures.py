"""Pictures in files of every kind, and how they look."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from app.core.pictures import PictureLimits, check_picture
from app.core.pixels import decode

LIMITS = PictureLimits(
    max_bytes=1 << 20, max_pixels=1_000_000, min_side=8, max_side=4096, max_aspect=20
)


WHITE, RED, BLUE, GREEN = (255, 255, 255), (255, 0, 0), (0, 0, 255), (0, 255, 0)


def logo(
    ground: int | tuple[int, ...] = WHITE, *, mode: str = "RGB", size: tuple[int, int] = (40, 24)
) -> Image.Image:
    opaque = (255,) * (mode == "RGBA")
    picture = Image.new(mode, size, ground)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, size[0] - 1, 5), fill=RED + opaque)
    draw.ellipse((4, 8, 16, 20), fill=BLUE + opaque)
    return picture


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 - Pillow's own
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    check_picture(data, LIMITS)
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def shows(data: bytes, wanted: Image.Image, *, within: int = 0) -> None:
    found = pixels(data).astype(int)
    expected = np.asarray(wanted.convert("RGB")).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= within
