"""Pictures as encoded bytes with a digest, and what they may be.

Everything here is told by a file's header; `pixels.decode` is what makes pixels of it.
"""

import hashlib
import io
import os
import re
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from PIL import Image, UnidentifiedImageError

from app.core.errors import InvalidImageError
from app.core.pixels import BOMBS, FORMATS, ON_THE_SIDE, UNREADABLE, decode, turn_of
from app.core.settings import Settings

WANTED: Final = "An image is a PNG, JPEG or WEBP file"

# A progressive JPEG has about ten, and each may go over every pixel for the 31 bytes that it takes.
MOST_SCANS: Final = 100

_HEAD_BYTES: Final = 512
_MOST_SEGMENTS: Final = 5_000
# Of a JPEG: what is no datum of a scan and no end of a part of one.
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_MARKER: Final = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
# What of a file Pillow reads an orientation from.
_SAYS_TURN: Final = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
# What else people hold pictures in, told by its first bytes so that a refusal can name it.
_OTHERS: Final = (
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("AVIF", re.compile(rb".{4}ftyp(?:.{4}){0,8}avi[fs]", re.DOTALL)),
    ("HEIC", re.compile(rb".{4}ftyp(?:.{4}){0,8}(?:hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51")),
    ("ICO", re.compile(rb"\x00\x00\x01\x00")),
    ("PSD", re.compile(rb"8BPS")),
    ("PDF", re.compile(rb"%PDF-")),
    ("PPM", re.compile(rb"P[1-7]\s")),
    ("DICOM", re.compile(rb".{128}DICM", re.DOTALL)),
    ("a video", re.compile(rb".{4}ftyp", re.DOTALL)),
    ("HTML", re.compile(rb"\s*<(?:!doctype html|html)", re.IGNORECASE)),
    ("SVG", re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:[?!].*<)?svg[\s/>]", re.DOTALL)),
    ("a Git LFS pointer", re.compile(rb"version https://git-lfs")),
    # An error that was stored as a picture, or base64.
    ("a text", re.compile(rb"[\t\n\r -~]+\Z")),
)


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """What a picture may be.

    Bytes are of the file, sides in pixels (small ones break vision towers), and the aspect is
    longer over shorter side.
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


class PictureFile:
    """Encoded pictures in a file without a name, which is gone with the last picture of it.

    It takes room in the folder, or among the system's temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._descriptor, path = tempfile.mkstemp(prefix="vlibrary-", dir=folder)
        Path(path).unlink()
        weakref.finalize(self, os.close, self._descriptor)
        self._num_bytes = 0
        self._known: dict[str, Picture] = {}

    def add(self, data: bytes, *, pixel_digest: str | None = None) -> "Picture":
        """The picture, stored unless it is already there."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._known:
            source = partial(self.read, self._num_bytes, len(data))
            left = memoryview(data)
            while left:
                written = os.write(self._descriptor, left)
                left = left[written:]
            self._num_bytes += len(data)
            self._known[digest] = Picture(digest=digest, source=source, pixel_digest=pixel_digest)
        return self._known[digest]

    def read(self, offset: int, length: int) -> bytes:
        """What lies there."""
        return os.pread(self._descriptor, length, offset)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """An encoded picture.

    Attributes:
        digest: SHA-256 of the file; equal digests show equal pixels.
        source: The file, or what reads it from where it lies.
        pixel_digest: Of its pixels, equal for files that show the same; None where it is not known.
    """

    digest: str
    source: bytes | Callable[[], bytes]
    pixel_digest: str | None = None

    @classmethod
    def of(cls, source: bytes | Image.Image) -> Self:
        """A picture of an encoded file, or of pixels, which are encoded without loss."""
        if isinstance(source, Image.Image):
            buffer = io.BytesIO()
            source.save(buffer, format="PNG", compress_level=1)
            source = buffer.getvalue()
        return cls(digest=hashlib.sha256(source).hexdigest(), source=source)

    @property
    def data(self) -> bytes:
        """The encoded file."""
        return self.source if isinstance(self.source, bytes) else self.source()

    def decoded(self) -> Image.Image:
        """The pixels in RGB as a viewer shows them, decoded anew.

        Raises:
            InvalidImageError: It is damaged.
        """
        return decode(self.data)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as it is shown, read off the file's header.

        Raises:
            InvalidImageError: The header cannot be read.
        """
        try:
            with Image.open(io.BytesIO(self.data), formats=FORMATS) as image:
                # Asking a PNG for EXIF behind its pixels would decode them.
                turn = turn_of(image) if _SAYS_TURN & image.info.keys() else None
                width, height = image.size
        except UNREADABLE:
            raise InvalidImageError(f"{WANTED}, found one that cannot be read") from None
        return (height, width) if turn in ON_THE_SIDE else (width, height)


def check_picture(data: bytes, limits: PictureLimits) -> bool:
    """Whether a picture within the limits is an animation, of which only the first frame is taken.

    Told by the file's header.

    Raises:
        InvalidImageError: It is another format, unreadable, or of a size or shape that is not
            taken. The message never holds what the decoder said, which may quote the file.
    """
    if len(data) > limits.max_bytes:
        raise InvalidImageError(f"An image has at most {limits.max_bytes} bytes, found {len(data)}")
    (width, height), is_animated = _read_header(data, limits)
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
    if data.startswith(b"\xff\xd8") and _has_many_scans(data):
        raise InvalidImageError(f"A JPEG has at most {MOST_SCANS} scans, found more")
    return is_animated


def _has_many_scans(data: bytes) -> bool:
    num_scans, place = 0, 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None or found[1][0] == _END_OF_IMAGE:
            return False
        num_scans += found[1][0] == _START_OF_SCAN
        if num_scans > MOST_SCANS:
            return True
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return True


def _read_header(data: bytes, limits: PictureLimits) -> tuple[tuple[int, int], bool]:
    """Width and height as stored, and whether it is an animation."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # A camera's file of several frames is a JPEG with others behind it.
            is_camera = image.format == "MPO"
            return image.size, not is_camera and getattr(image, "n_frames", 1) > 1
    except BOMBS:
        raise InvalidImageError(f"An image has at most {limits.max_pixels} pixels") from None
    except UnidentifiedImageError:
        found = _name_format(data)
        raise InvalidImageError(f"{WANTED}, found {found}", details={"found": found}) from None
    except UNREADABLE:
        raise InvalidImageError(f"{WANTED}, found one that cannot be read") from None


def _name_format(data: bytes) -> str:
    if not data:
        return "an empty file"
    head = data[:_HEAD_BYTES]
    named = (name for name, pattern in _OTHERS if pattern.match(head))
    return next(named, "a damaged file or another format")
