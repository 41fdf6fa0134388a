"""The one function that makes pixels of an encoded picture.

Pixels are what a viewer shows: the EXIF orientation is applied, transparency lies on white, 16 bits
a channel keep their upper 8, CMYK becomes RGB, and an embedded ICC profile is followed to sRGB.
Of an animation and of a camera's several frames (MPO) the first is taken. Not followed are PNG's
`gAMA`, `cHRM` and `cICP` chunks, and gain maps. Whatever changes the pixels of any file raises
`PIXELS_VERSION`.
"""

import hashlib
import io
import struct
import zlib
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from app.core.errors import InvalidImageError

PIXELS_VERSION: Final = 3
FORMATS: Final = ("PNG", "JPEG", "WEBP")
# Decoders fail with almost any exception on hostile files.
UNREADABLE: Final = (
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
)
# Drawing programs and cameras write texts and profiles of several MiB beside the pixels. All of
# them together have at most Pillow's own 64 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = 16 << 20
BOMBS: Final = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Turns that change width and height.
ON_THE_SIDE: Final = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_MAX_PROFILE_BYTES: Final = 4 << 20
_PROBE_LEVELS: Final = tuple(range(0, 256, 15))
# Two roundings of 8 bits.
_SAME_LEVELS: Final = 2
_WEBP_CHUNKS: Final = 12
_JPEG_START: Final = 2
_JPEG_END: Final = b"\xd9"
_JPEG_EMPTY: Final = (b"", b"\0", b"\xff", *(bytes([kind]) for kind in range(0xD0, 0xD8)))
_PNG_DEPTH: Final = 24
_PNG_COLOUR_TYPE: Final = 25
_PNG_GREY: Final = 0
_PNG_CHUNKS: Final = 8
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row of each pass over the picture, and the steps to the next.
_PNG_WHOLE: Final = ((0, 0, 1, 1),)
_PNG_PASSES: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PNG_PIECE: Final = 1 << 20


def decode(data: bytes) -> Image.Image:
    """The pixels in RGB as a viewer shows them.

    Args:
        data: A file whose header has passed `check_picture`.

    Raises:
        InvalidImageError: It is cut short or damaged, or is a PNG of 16 bits a channel with a
            transparent colour, which cannot be told from its neighbours in 8 bits.
    """
    name = "PNG, JPEG or WEBP"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            name = str(image.format)
            if name == "PNG":
                _check_sums(data)
                _check_rows(data, image.size)
            elif name != "WEBP":
                _check_end(data)
            image.load()
            turn = turn_of(image)
            pixels = _shown(image, data)
    except InvalidImageError:
        raise
    except (*UNREADABLE, *BOMBS):
        raise InvalidImageError(
            f"An image cannot be decoded: its {name} file is cut short or damaged"
        ) from None
    return pixels if turn is None else pixels.transpose(turn)


def pixel_digest(image: Image.Image) -> str:
    """A digest of decoded pixels, equal for files that show the same."""
    digest = hashlib.sha256(f"{image.mode}:{image.size}:".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _check_sums(data: bytes) -> None:
    # Decoding stops at the last row and never looks at the checksums.
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()


def _check_rows(data: bytes, size: tuple[int, int]) -> None:
    # A stream that ends well but early leaves the rest of the picture black.
    width, height = size
    depth, colour_type, _, _, interlaced = data[_PNG_DEPTH : _PNG_DEPTH + 5]
    bits = depth * _PNG_CHANNELS[colour_type]
    wanted = sum(
        -(-(height - top) // down) * (1 + (-(-(width - left) // across) * bits + 7) // 8)
        for left, top, across, down in (_PNG_PASSES if interlaced else _PNG_WHOLE)
        if left < width and top < height
    )
    if _inflated_bytes(data, wanted) < wanted:
        raise ValueError("rows are missing")


def _check_end(data: bytes) -> None:
    # What a download never filled are zeros, and decoders take them for the rest of a JPEG.
    place = _JPEG_START
    while (place := data.find(b"\xff", place)) >= 0:
        kind = data[place + 1 : place + 2]
        if kind == _JPEG_END:
            return
        # Between pixels stand markers without content; others tell how long they are.
        has_content = kind not in _JPEG_EMPTY
        place += 2 + int.from_bytes(data[place + 2 : place + 4]) if has_content else 1
    raise ValueError("its end is missing")


def _inflated_bytes(data: bytes, wanted: int) -> int:
    """How many bytes of rows a PNG holds; no more than wanted are counted."""
    stream = zlib.decompressobj()
    place, found = _PNG_CHUNKS, 0
    while place < len(data) and found < wanted:
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        left = data[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        while left and found < wanted:
            found += len(stream.decompress(left, _PNG_PIECE))
            left = stream.unconsumed_tail
        place += length + 12
    return found


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright, as its file says."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (*UNREADABLE, AttributeError, Warning):
        # Viewers show pictures with damaged EXIF as they lie.
        return None
    return _TURNS.get(value) if isinstance(value, int) else None


def _shown(image: Image.Image, data: bytes) -> Image.Image:
    alpha = _alpha(image, data)
    colours = _to_srgb(_colours(image), image.info.get("icc_profile"))
    if alpha is None:
        return colours
    return Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)


def _alpha(image: Image.Image, data: bytes) -> Image.Image | None:
    """How opaque each pixel is, 0 to 255, or None when all are."""
    if "A" in image.getbands():
        return image.getchannel("A")
    if image.format == "WEBP":
        return _first_frame(image, data)
    if "transparency" not in image.info:
        return None
    if image.mode == "P":
        return image.convert("RGBA").getchannel("A")
    depth = data[_PNG_DEPTH]
    if image.mode == "RGB" and depth > 8:  # noqa: PLR2004 - bits a byte
        raise InvalidImageError(
            "An image cannot be decoded: a PNG of 16 bits a channel has a transparent colour"
        )
    key = image.info["transparency"]
    if image.mode == "L" and data[_PNG_COLOUR_TYPE] == _PNG_GREY:
        # The key counts in the file's levels, of which there may be 4 or 16.
        key = key * 255 // (2**depth - 1)
    samples = np.asarray(image.convert("L") if image.mode == "1" else image)
    matches = samples == np.asarray(key)
    if matches.ndim > 2:  # noqa: PLR2004 - rows and columns
        matches = matches.all(-1)
    return Image.fromarray(np.where(matches, 0, 255).astype(np.uint8))


def _first_frame(image: Image.Image, data: bytes) -> Image.Image | None:
    """What the first frame of an animation covers; Pillow shows the rest of such a WEBP black."""
    place = _WEBP_CHUNKS
    while place + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[place : place + 8])
        if kind == b"ANMF":
            numbers = data[place + 8 : place + 20]
            values = [int.from_bytes(numbers[at : at + 3], "little") for at in (0, 3, 6, 9)]
            left, top, width, height = 2 * values[0], 2 * values[1], values[2] + 1, values[3] + 1
            covered = Image.new("L", image.size, 0)
            covered.paste(255, (left, top, left + width, top + height))
            return covered
        place += 8 + length + length % 2
    return None


def _colours(image: Image.Image) -> Image.Image:
    """The picture without its transparency as L, RGB or CMYK, 8 bits a channel."""
    if image.mode in {"L", "RGB", "CMYK"}:
        return image
    if image.mode in {"1", "LA", "La"}:
        return image.convert("L")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(levels.astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _to_srgb(colours: Image.Image, profile: bytes | None) -> Image.Image:
    transform = None
    if profile and len(profile) <= _MAX_PROFILE_BYTES:
        transform = _transform(profile, colours.mode)
    if transform is None:
        return colours.convert("RGB")
    return _apply(transform, colours)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way to sRGB, or None when the profile is damaged, of another mode, or is sRGB itself."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
        probe = _probe(mode)
        change = np.asarray(_apply(transform, probe)).astype(int) - np.asarray(probe.convert("RGB"))
    except (ImageCms.PyCMSError, *UNREADABLE):
        return None
    # Most pictures name sRGB; they must have the same pixels as those that name nothing.
    return transform if np.abs(change).max() > _SAME_LEVELS else None


def _apply(transform: ImageCms.ImageCmsTransform, colours: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(colours, transform)
    assert converted is not None  # noqa: S101 - only in-place conversions return nothing
    return converted


def _probe(mode: str) -> Image.Image:
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    axes = np.meshgrid(*[np.array(_PROBE_LEVELS, dtype=np.uint8)] * 3)
    grid = Image.fromarray(np.stack(axes, -1).reshape(len(_PROBE_LEVELS), -1, 3))
    return grid if mode == "RGB" else grid.convert(mode)
