"""Pictures in files of every kind, and how they look."""

import io
import struct
import zlib
from typing import Any, Literal

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


def on_its_side(picture: Image.Image, form: str, where: Literal["exif", "xmp", "behind"]) -> bytes:
    """A file that tells its orientation in EXIF, in XMP, or (a PNG) behind its pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    if where == "exif":
        return encoded(picture, form, exif=exif)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    if form != "PNG":
        return encoded(picture, form, xmp=xmp)
    data = encoded(picture)
    if where == "xmp":
        return with_chunk(data, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp, before=b"IDAT")
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    return with_chunk(data, b"eXIf", body, before=b"IEND")


def with_chunk(data: bytes, kind: bytes, body: bytes, *, before: bytes) -> bytes:
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    place = data.index(before) - 4
    return data[:place] + chunk + data[place:]


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
