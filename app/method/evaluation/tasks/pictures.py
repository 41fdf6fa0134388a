"""Decoding pictures of data sets.

Knows Pillow; knows no data set.
"""

import io
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from app.core.errors import InvalidImageError

_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_MOST_PIXELS: Final = 20_000_000


def read_picture(source: bytes | Path) -> Image.Image:
    """The picture as RGB, wholly decoded.

    Args:
        source: PNG, JPEG or WebP bytes, or a file of them.

    Raises:
        InvalidImageError: It is another format, damaged, missing, or has more than 20 million
            pixels; the header is judged before anything is decoded.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return _decoded(image)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidImageError(
            "Not a picture: wanted a whole PNG, JPEG or WebP",
            details={"reason": type(error).__name__},
        ) from error


def _decoded(image: Image.Image) -> Image.Image:
    if image.format not in _FORMATS:
        raise InvalidImageError(
            f"Not a picture that can be used: wanted {', '.join(_FORMATS)}, found {image.format}"
        )
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise InvalidImageError(
            f"The picture is too large: wanted at most {_MOST_PIXELS} pixels, "
            f"found {width * height}"
        )
    return image.convert("RGB")
