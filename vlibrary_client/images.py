"""Turns what callers hold an image in into the encoded bytes that a server takes.

Knows nothing of HTTP. Nothing is fetched: an address is refused, a path is read.
"""

import base64
import binascii
import io
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from vlibrary_client.errors import InvalidImageError

ImageSource: TypeAlias = str | PathLike[str] | bytes | Image.Image

_KEPT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def image_bytes(source: ImageSource) -> bytes:
    """The encoded file of an image: PNG for a Pillow image, the bytes as they are otherwise.

    Args:
        source: A Pillow image, encoded bytes, a path, or a `data:` URL.

    Raises:
        InvalidImageError: The file cannot be read, or the text is a remote address.
    """
    if isinstance(source, Image.Image):
        return _encode_png(source)
    if isinstance(source, bytes):
        return source
    if isinstance(source, str) and source.startswith("data:"):
        return _decode_data_url(source)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise InvalidImageError("images are not fetched from addresses; pass the bytes or a path")
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InvalidImageError(f"cannot read the image file: {error.strerror}") from error


def image_text(source: ImageSource) -> str:
    """The image as base64 text, the form in which JSON carries it.

    Raises:
        InvalidImageError: As for `image_bytes`.
    """
    return base64.b64encode(image_bytes(source)).decode("ascii")


def _encode_png(image: Image.Image) -> bytes:
    writable = image if image.mode in _KEPT_MODES else image.convert("RGB")
    buffer = io.BytesIO()
    writable.save(buffer, format="PNG")
    return buffer.getvalue()


def _decode_data_url(url: str) -> bytes:
    header, separator, payload = url.partition(",")
    if not separator or not header.endswith(";base64"):
        raise InvalidImageError("wanted a data: URL with base64 content")
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise InvalidImageError("the data: URL's content is not base64") from error
