"""Images in requests: base64 text in, checked file bytes out. Pixels are never decoded here.

Nothing is fetched: an address is refused like any text that is not base64.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from app.api.schemas.fields import is_data_url
from app.core.errors import InvalidImageError, TooLargeError
from app.core.pictures import PictureLimits, check_picture
from app.core.settings import Settings
from app.rpc.messages import MAX_IMAGE_BYTES
from vlibrary_client.images import decode_base64, decode_data_url

NOT_BASE64: Final = "An image is base64 text or a base64 data: URL of a PNG, JPEG or WEBP file"
# So much is read in less time than a thread takes to begin.
SMALL_CHARACTERS: Final = 2**16


async def read_images(texts: Sequence[str], *, settings: Settings) -> tuple[bytes, ...]:
    """The images' file bytes, each with a header that passes every limit of the settings.

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


def _read_all(texts: Sequence[str], limits: PictureLimits) -> tuple[bytes, ...]:
    files = []
    for number, text in enumerate(texts):
        try:
            files.append(read_image(text, limits))
        except (InvalidImageError, TooLargeError) as error:
            place = f"images.{number}"
            message = f"{place}: {error.message}" if len(texts) > 1 else error.message
            raise type(error)(message, details={**error.details, "param": place}) from None
    return tuple(files)


def read_image(text: str, limits: PictureLimits) -> bytes:
    """One image's file bytes; see `read_images`."""
    too_large = TooLargeError(
        f"An image has at most {limits.max_bytes} bytes", details={"wanted": limits.max_bytes}
    )
    # With room for ends of lines and escapes; the rest is told when it is decoded.
    if len(text) >= 2 * limits.max_bytes:
        raise too_large
    try:
        # The file itself says what it is; clients name other types, none, or parameters beside it.
        data = (decode_data_url if is_data_url(text) else decode_base64)(text)
    except ValueError:
        raise InvalidImageError(NOT_BASE64) from None
    if len(data) > limits.max_bytes:
        raise too_large
    check_picture(data, limits)
    return data
