"""Turns what callers hold an image in into the encoded bytes that a server takes.

Knows nothing of HTTP. Nothing is fetched: an address is refused, a path is read.
"""

import base64
import io
import math
import re
import struct
from os import PathLike
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

from PIL import ExifTags, Image, ImageCms

from vlibrary_client.errors import InvalidImageError

ImageSource: TypeAlias = str | PathLike[str] | bytes | Image.Image

_KEPT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
# Modes that PNG cannot hold, with the one that loses nothing of what they show.
_WRITTEN_AS = {"PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
_SPACE = re.compile(r"\s+")
# Encoders for addresses write these two characters of the alphabet otherwise.
_FROM_URL_SAFE = str.maketrans("-_", "+/")
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
    if isinstance(source, str) and source[:5].lower() == "data:":
        try:
            return decode_data_url(source)
        except ValueError as error:
            raise InvalidImageError(str(error)) from error
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise InvalidImageError("images are not fetched from addresses; pass the bytes or a path")
    if not isinstance(source, str | PathLike):
        raise InvalidImageError(
            "wanted an image as a Pillow image, bytes, a path or a data: URL, found "
            f"{type(source).__name__}"
        )
    try:
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path"
        shown = str(source)[:200].encode(errors="replace").decode()
        raise InvalidImageError(f"cannot read the image file {shown}: {reason}") from error


def image_text(source: ImageSource) -> str:
    """The image as base64 text, the form in which JSON carries it.

    Raises:
        InvalidImageError: As for `image_bytes`.
    """
    return base64.b64encode(image_bytes(source)).decode("ascii")


def _encode_png(image: Image.Image) -> bytes:
    """The picture without loss, with what its file said of how it is shown."""
    orientation = Image.Exif()
    buffer = io.BytesIO()
    try:
        # Of some formats the pixels are turned as they are read, and the tag is gone.
        image.load()
        orientation[ExifTags.Base.Orientation] = _orientation(image)
        writable = _writable(image)
        writable.save(
            buffer,
            format="PNG",
            exif=orientation,
            icc_profile=image.info.get("icc_profile") if writable.mode == image.mode else None,
        )
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidImageError(
            f"cannot write a picture of mode {image.mode} and size {image.width} x {image.height}: "
            f"{error}"
        ) from error
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
    if image.mode.startswith("I;16"):
        # Pillow cuts off the upper bits of other byte orders unless it takes this way.
        return image.convert("I").convert("I;16")
    if image.mode == "CMYK" and image.info.get("icc_profile"):
        return _printed_to_srgb(image)
    return image.convert(_WRITTEN_AS.get(image.mode, "RGB"))


def _scaled(image: Image.Image) -> Image.Image:
    """Grey levels in the range that their largest value fits: 0 to 1, to 255 or to 65535."""
    low, high = image.getextrema()
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise InvalidImageError(f"wanted one channel of grey, found mode {image.mode}")
    # Extrema pass over what is no number; a mean does not.
    if str(image.reduce(image.size).getpixel((0, 0))) == "nan":
        low = high = math.nan
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


def decode_data_url(url: str) -> bytes:
    """What a data: URL holds, whichever type and parameters it names.

    Raises:
        ValueError: Its content is not base64.
    """
    header, comma, payload = url.partition(",")
    if not comma or "base64" not in header.lower().split(";"):
        raise ValueError("wanted a data: URL with base64 content")
    try:
        data = decode_base64(payload)
    except ValueError as error:
        raise ValueError("the data: URL's content is not base64") from error
    if not data:
        raise ValueError("the data: URL is empty")
    return data


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 as it is written: also for addresses, unpadded, or on several lines.

    Raises:
        ValueError: It is none.
    """
    # Encoders for mail break lines, and some clients escape what stands in an address.
    payload = _SPACE.sub("", unquote(text)).rstrip("=").translate(_FROM_URL_SAFE)
    return base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
