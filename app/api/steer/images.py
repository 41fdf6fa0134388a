"""Images in requests: base64 text in, checked file bytes out. Pixels are never decoded here.

Nothing is fetched: an address is refused like any text that is not base64.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import unquote

from app.api.schemas.fields import is_data_url
from app.core.errors import InvalidImageError, TooLargeError
from app.core.pictures import PictureLimits, check_picture
from app.core.settings import Settings
from app.rpc.messages import MAX_IMAGE_BYTES

NOT_BASE64: Final = "An image is base64 text or a base64 data: URL of a PNG, JPEG or WEBP file"
_MAX_DATA_HEADER_CHARACTERS: Final = 256
# So much is read in less time than a thread takes to begin.
SMALL_CHARACTERS: Final = 2**16


async def read_images(
    texts: Sequence[str], *, settings: Settings
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The images' file bytes, each with a header that passes every limit, and notes on them.

    Raises:
        InvalidImageError: An image is not readable, or of a size or shape that is not taken.
        TooLargeError: There are too many, or one is too large.
    """
    most = settings.max_images
    if len(texts) > most:
        raise TooLargeError(
            f"A request has at most {most} images, found {len(texts)}",
            details={"wanted": most, "found": len(texts)},
        )
    limits = PictureLimits.of(settings)
    limits = replace(limits, max_bytes=min(limits.max_bytes, MAX_IMAGE_BYTES))
    if sum(map(len, texts)) <= SMALL_CHARACTERS:
        return _read_all(texts, limits)
    return await asyncio.to_thread(_read_all, texts, limits)


def _read_all(
    texts: Sequence[str], limits: PictureLimits
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    files, notes = [], []
    for number, text in enumerate(texts):
        place = f"images.{number}"
        try:
            data, is_animated = read_image(text, limits)
        except (InvalidImageError, TooLargeError) as error:
            message = f"{place}: {error.message}" if len(texts) > 1 else error.message
            raise type(error)(message, details={**error.details, "param": place}) from None
        files.append(data)
        if is_animated:
            notes.append(f"{place} is an animation, of which the first frame is taken")
    return tuple(files), tuple(notes)


def read_image(text: str, limits: PictureLimits) -> tuple[bytes, bool]:
    """One image's file bytes, and whether it is an animation; see `read_images`."""
    # Encoders for mail break lines, and some clients escape what stands in an address.
    payload = "".join(unquote(_payload(text)).split()).rstrip("=")
    # Encoders for addresses write these two characters of the alphabet otherwise.
    payload = payload.replace("-", "+").replace("_", "/")
    if len(payload) * 3 // 4 > limits.max_bytes:
        raise TooLargeError(
            f"An image has at most {limits.max_bytes} bytes", details={"wanted": limits.max_bytes}
        )
    try:
        data = base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImageError(NOT_BASE64) from None
    return data, check_picture(data, limits)


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
