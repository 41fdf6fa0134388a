"""Image files from requests as pixels, within limits that are judged before anything is decoded."""

import io
from dataclasses import dataclass
from typing import Final, Self

from PIL import Image

from app.core.errors import InvalidImageError
from app.core.settings import Settings

FORMATS: Final = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What an image may be.

    Attributes:
        max_bytes: Size of the file.
        max_pixels: Width times height.
        min_side: Shorter side in pixels; smaller ones break vision towers.
        max_side: Longer side in pixels.
        max_aspect: Longer over shorter side.
    """

    max_bytes: int
    max_pixels: int
    min_side: int
    max_side: int
    max_aspect: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the settings give."""
        return cls(
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            min_side=settings.min_image_side,
            max_side=settings.max_image_side,
            max_aspect=settings.max_image_aspect,
        )


def open_image(data: bytes, *, limits: ImageLimits) -> Image.Image:
    """The first frame in RGB.

    Raises:
        InvalidImageError: It is no PNG, JPEG or WebP, or exceeds a limit. The message never holds
            what the decoder said, which may quote the file.
    """
    if len(data) > limits.max_bytes:
        raise InvalidImageError(f"An image has at most {limits.max_bytes} bytes, found {len(data)}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # Opening reads the header only; nothing is decoded before the size is judged.
            _check_size(image.width, image.height, limits=limits)
            return image.convert("RGB")
    except InvalidImageError:
        raise
    except Exception as error:
        # Decoders fail with almost any exception on hostile files.
        raise InvalidImageError("Not a readable PNG, JPEG or WebP image") from error


def _check_size(width: int, height: int, *, limits: ImageLimits) -> None:
    short, long = sorted((width, height))
    if short < limits.min_side or long > limits.max_side:
        raise InvalidImageError(
            f"The sides of an image have {limits.min_side} to {limits.max_side} pixels, "
            f"found {width}x{height}"
        )
    if width * height > limits.max_pixels:
        raise InvalidImageError(
            f"An image has at most {limits.max_pixels} pixels, found {width * height}"
        )
    if long > short * limits.max_aspect:
        raise InvalidImageError(
            f"The longer side is at most {limits.max_aspect:g} times the shorter, "
            f"found {width}x{height}"
        )
