"""Turns what callers hold an image in into the encoded bytes that a server takes.

Knows nothing of HTTP. Nothing is fetched: an address is refused, a path is read.
"""

import base64
import binascii
import io
import struct
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from PIL import ExifTags, Image, ImageCms

from vlibrary_client.errors import InvalidImageError

ImageSource: TypeAlias = str | PathLike[str] | bytes | Image.Image

_KEPT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
# Modes that PNG cannot hold, with the one that loses nothing of what they show.
_WRITTEN_AS = {"PA": "RGBA", "La": "LA", "RGBa": "RGBA", "I;16B": "I;16", "I;16L": "I;16"}
_LEVELS_8 = 255
_LEVELS_16 = 65535


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
    """The picture without loss, with what its file said of how it is shown."""
    orientation = Image.Exif()
    orientation[ExifTags.Base.Orientation] = _orientation(image)
    buffer = io.BytesIO()
    try:
        writable = _writable(image)
        writable.save(
            buffer,
            format="PNG",
            exif=orientation,
            icc_profile=image.info.get("icc_profile") if writable.mode == image.mode else None,
        )
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidImageError(f"cannot write a picture of mode {image.mode}") from error
    return buffer.getvalue()


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1  # noqa: PLR2004 - EXIF


def _writable(image: Image.Image) -> Image.Image:
    if image.mode in _KEPT_MODES:
        return image
    if image.mode in {"I", "F"}:
        return _scaled(image)
    if image.mode == "CMYK" and image.info.get("icc_profile"):
        return _printed_to_srgb(image)
    return image.convert(_WRITTEN_AS.get(image.mode, "RGB"))


def _scaled(image: Image.Image) -> Image.Image:
    """Grey levels in the range that their largest value fits: 0 to 1, to 255 or to 65535."""
    low, high = image.getextrema()
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise InvalidImageError(f"wanted one channel of grey, found mode {image.mode}")
    if not (0 <= low <= high <= _LEVELS_16):
        raise InvalidImageError(
            f"wanted grey levels of 0 to 1, 255 or {_LEVELS_16}, found {low:g} to {high:g}"
        )
    if image.mode == "F" and high <= 1:
        return image.point(lambda level: level * _LEVELS_8 + 0.5).convert("L")
    if high <= _LEVELS_8:
        return image.convert("L")
    return image.convert("I").convert("I;16")


def _printed_to_srgb(image: Image.Image) -> Image.Image:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, profile, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        converted = None
    return image.convert("RGB") if converted is None else converted


def _decode_data_url(url: str) -> bytes:
    header, separator, payload = url.partition(",")
    if not separator or not header.endswith(";base64"):
        raise InvalidImageError("wanted a data: URL with base64 content")
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise InvalidImageError("the data: URL's content is not base64") from error
