"""Images in requests: base64 text in, checked file bytes out. Pixels are never decoded here.

Nothing is fetched: an address is refused like any text that is not base64.
"""

import asyncio
import base64
import binascii
import io
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import unquote

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from app.api.schemas.fields import is_data_url
from app.core.errors import InvalidImageError, TooLargeError
from app.core.settings import Settings
from app.rpc.messages import MAX_IMAGE_BYTES

FORMATS: Final = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
)
NOT_BASE64: Final = "An image is base64 text or a base64 data: URL of a PNG, JPEG or WEBP file"
NOT_READABLE: Final = "An image is not a readable PNG, JPEG or WEBP file"
_MAX_DATA_HEADER_CHARACTERS: Final = 256
_NOT_ALPHABET: Final = re.compile(r"\s+")
# Encoders for addresses write these two characters of the alphabet otherwise.
_FROM_URL_SAFE: Final = str.maketrans("-_", "+/")
_UNREADABLE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What an image may be: bytes of its file, pixels, sides in pixels, longer by shorter side."""

    max_images: int
    max_bytes: int
    max_pixels: int
    min_side: int
    max_side: int
    max_aspect: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the settings ask for."""
        return cls(
            max_images=settings.max_images,
            max_bytes=min(settings.max_image_bytes, MAX_IMAGE_BYTES),
            max_pixels=settings.max_image_pixels,
            min_side=settings.min_image_side,
            max_side=settings.max_image_side,
            max_aspect=settings.max_image_aspect,
        )


async def read_images(texts: Sequence[str], *, limits: ImageLimits) -> tuple[bytes, ...]:
    """The images' file bytes, each with a header that passes every limit.

    Raises:
        InvalidImageError: An image is not readable, or of a size or shape that is not taken.
        TooLargeError: There are too many, or one is too large.
    """
    if len(texts) > limits.max_images:
        raise TooLargeError(
            f"A request has at most {limits.max_images} images, found {len(texts)}",
            details={"wanted": limits.max_images, "found": len(texts)},
        )
    return await asyncio.to_thread(lambda: tuple(read_image(text, limits) for text in texts))


def read_image(text: str, limits: ImageLimits) -> bytes:
    """One image's file bytes; see `read_images`."""
    # Encoders for mail break lines, and some clients escape what stands in an address.
    payload = _NOT_ALPHABET.sub("", unquote(_payload(text)))
    payload = payload.rstrip("=").translate(_FROM_URL_SAFE)
    if len(payload) * 3 // 4 > limits.max_bytes:
        raise TooLargeError(
            f"An image has at most {limits.max_bytes} bytes", details={"wanted": limits.max_bytes}
        )
    try:
        data = base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImageError(NOT_BASE64) from None
    check_header(data, limits)
    return data


def _payload(text: str) -> str:
    if not is_data_url(text):
        return text
    header, comma, payload = text.partition(",")
    if not comma or len(header) > _MAX_DATA_HEADER_CHARACTERS:
        raise InvalidImageError(NOT_BASE64)
    # The file itself says what it is; clients name other types, none, or parameters beside it.
    if "base64" not in header.lower().split(";"):
        raise InvalidImageError(NOT_BASE64)
    return payload


def check_header(data: bytes, limits: ImageLimits) -> None:
    """Returns when the file's header tells of an image within the limits.

    Raises:
        InvalidImageError: It does not.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except _UNREADABLE:
        # Pillow's own text may hold addresses and parts of the file.
        raise InvalidImageError(NOT_READABLE) from None
    if width * height > limits.max_pixels:
        raise InvalidImageError(
            f"An image has at most {limits.max_pixels} pixels, found {width * height}",
            details={"wanted": limits.max_pixels, "found": width * height},
        )
    short, long = sorted((width, height))
    if short < limits.min_side or long > limits.max_side:
        raise InvalidImageError(
            f"An image's sides have {limits.min_side} to {limits.max_side} pixels, "
            f"found {width} x {height}"
        )
    if long > limits.max_aspect * short:
        raise InvalidImageError(
            f"An image is at most {limits.max_aspect:g} times as long as wide, "
            f"found {width} x {height}"
        )
