"""Pictures of data sets: looked at once, then left encoded where they lie.

Knows no data set.
"""

from pathlib import Path
from typing import Final

from app.core.errors import InvalidImageError
from app.core.pictures import Picture, PictureLimits, check_picture
from app.core.pixels import decode, pixel_digest

_LIMITS: Final = PictureLimits(
    max_bytes=64 << 20, max_pixels=20_000_000, min_side=1, max_side=65_535, max_aspect=65_535
)


def read_picture(source: bytes | Path) -> Picture:
    """The picture of a file, after it was decoded once.

    Args:
        source: PNG, JPEG or WebP bytes, or a file of them.

    Raises:
        InvalidImageError: It is another format, damaged, missing, or has more than 20 million
            pixels; the header is judged before anything is decoded.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise InvalidImageError(
            "Not a picture: the file cannot be read", details={"reason": type(error).__name__}
        ) from error
    check_picture(data, _LIMITS)
    picture = Picture.of(data)
    return Picture(digest=picture.digest, source=data, pixel_digest=pixel_digest(decode(data)))
