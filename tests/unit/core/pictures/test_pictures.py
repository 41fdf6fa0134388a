"""Whatever a file holds, its pixels are what a viewer shows, or it is refused by name."""

import io
import struct
import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from app.core.errors import InvalidImageError
from app.core.pixels import decode, pixel_digest
from tests.fakes.files.pictures import BLUE, GREEN, RED, WHITE, encoded, logo, pixels, shows

RAMP = (np.arange(64, dtype=np.uint32) * 1024).astype(np.uint16)[None].repeat(16, 0)


def png(
    samples: tuple[int, int, list[bytes]],
    *,
    depth: int,
    colour_type: int,
    chunks: Sequence[tuple[bytes, bytes]] = (),
    interlaced: int = 0,
) -> bytes:
    """A PNG by hand, for what Pillow cannot write; samples are rows of bytes as they are packed."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = samples[0], samples[1]
    rows = b"".join(b"\0" + row for row in samples[2])
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(kind, body) for kind, body in chunks)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "options", "within"),
    [
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 100, "subsampling": 0}, 3),
    ],
)
def test_the_orientation_that_a_file_declares_is_applied(
    *, orientation: int, form: str, options: dict[str, Any], within: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(logo(), form, exif=exif.tobytes(), **options)
    plain = encoded(logo(), form, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (upright.size == logo().size) == (orientation < 5)
    shows(data, upright, within=within)
    assert (pixel_digest(decode(data)) == pixel_digest(decode(plain))) == (orientation == 1)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_changes_nothing(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    shows(encoded(logo(), exif=exif.tobytes()), logo())


def test_damaged_exif_leaves_the_picture_as_it_lies() -> None:
    shows(encoded(logo(), exif=b"Exif\0\0MM\0*\0\0\xff\xff\x01"), logo())


@pytest.mark.parametrize("hidden", [(0, 0, 0), RED, WHITE])
@pytest.mark.parametrize(
    ("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_what_is_hidden_under_transparency_is_never_shown(
    form: str, options: dict[str, Any], hidden: tuple[int, int, int]
) -> None:
    shows(encoded(logo((*hidden, 0), mode="RGBA"), form, **options), logo())


def test_half_transparency_mixes_with_white() -> None:
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert np.abs(pixels(encoded(half)).astype(int) - 127).max() <= 1


def test_grey_with_transparency_lies_on_white() -> None:
    grey = logo((0, 0, 0, 0), mode="RGBA").convert("LA")
    wanted = Image.new("L", grey.size, 255)
    wanted.paste(grey.getchannel("L"), mask=grey.getchannel("A"))
    shows(encoded(grey), wanted)


@pytest.mark.parametrize("transparency", [0, bytes([0, 255, 255])])
def test_transparent_entries_of_a_palette_are_white(transparency: int | bytes) -> None:
    palette = Image.new("P", (40, 24), 0)
    palette.putpalette([0, 0, 0, *RED, *BLUE])
    draw = ImageDraw.Draw(palette)
    draw.rectangle((0, 0, 39, 5), fill=1)
    draw.ellipse((4, 8, 16, 20), fill=2)
    shows(encoded(palette, transparency=transparency), logo())


def test_a_transparent_colour_is_white() -> None:
    shows(encoded(logo(GREEN), transparency=GREEN), logo())


@pytest.mark.parametrize(("mode", "ground"), [("L", 0), ("1", 0)])
def test_a_transparent_grey_is_white(mode: str, ground: int | tuple[int, ...]) -> None:
    picture = Image.new(mode, (24, 24), ground)
    ImageDraw.Draw(picture).rectangle((4, 4, 12, 12), fill=255 if mode == "1" else 90)
    wanted = Image.new("L", (24, 24), 255)
    ImageDraw.Draw(wanted).rectangle((4, 4, 12, 12), fill=255 if mode == "1" else 90)
    shows(encoded(picture, transparency=ground), wanted)


@pytest.mark.parametrize(("depth", "byte", "other"), [(2, 0b01_10_01_10, 170), (4, 0x1A, 170)])
def test_a_transparent_grey_counts_in_the_levels_of_its_file(
    depth: int, byte: int, other: int
) -> None:
    # Both levels of a row are 1 and another; 1 is transparent.
    width = 16 * 8 // depth
    data = png(
        (16, width, [bytes([byte]) * 16] * 16),
        depth=depth,
        colour_type=0,
        chunks=[(b"tRNS", struct.pack(">H", 1))],
    )
    assert set(np.unique(pixels(data))) == {other, 255}


def test_sixteen_bits_of_grey_keep_their_upper_eight() -> None:
    shows(encoded(Image.fromarray(RAMP)), Image.fromarray((RAMP >> 8).astype(np.uint8)))


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (3, 2)])
def test_sixteen_bits_a_channel_keep_their_upper_eight(channels: int, colour_type: int) -> None:
    rows = [np.stack([row] * channels, -1).astype(">u2").tobytes() for row in RAMP]
    data = png((16, 64, rows), depth=16, colour_type=colour_type)
    shows(data, Image.fromarray((RAMP >> 8).astype(np.uint8)))


@pytest.mark.parametrize(("channels", "colour_type"), [(2, 4), (4, 6)])
def test_sixteen_bits_a_channel_may_be_transparent(channels: int, colour_type: int) -> None:
    opacity = np.where(np.arange(64) < 32, 0, 65535).astype(np.uint16)
    rows = [
        np.stack([row] * (channels - 1) + [opacity], -1).astype(">u2").tobytes() for row in RAMP
    ]
    data = png((16, 64, rows), depth=16, colour_type=colour_type)
    wanted = (RAMP >> 8).astype(np.uint8)
    wanted[:, :32] = 255
    shows(data, Image.fromarray(wanted))


def test_a_transparent_grey_of_sixteen_bits_is_white() -> None:
    rows = [row.astype(">u2").tobytes() for row in RAMP]
    key = [(b"tRNS", struct.pack(">H", 1024))]
    wanted = (RAMP >> 8).astype(np.uint8)
    wanted[:, 1] = 255
    shows(png((16, 64, rows), depth=16, colour_type=0, chunks=key), Image.fromarray(wanted))


def test_a_transparent_colour_of_sixteen_bits_is_refused() -> None:
    rows = [np.stack([row] * 3, -1).astype(">u2").tobytes() for row in RAMP]
    key = [(b"tRNS", struct.pack(">HHH", 0, 0, 0))]
    with pytest.raises(InvalidImageError, match="16 bits a channel"):
        decode(png((16, 64, rows), depth=16, colour_type=2, chunks=key))


# Adam7: first column and row of each pass, and the steps to the next.
PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (13, 9), (8, 11)])
def test_an_interlaced_picture_is_the_plain_one(width: int, height: int) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    parts = [samples[top::down, left::across] for left, top, across, down in PASSES]
    rows = [row.tobytes() for part in parts for row in part if row.size]
    whole = png((height, width, rows), depth=8, colour_type=2, interlaced=1)
    shows(whole, Image.fromarray(samples))
    with pytest.raises(InvalidImageError, match="its PNG file is cut short or damaged"):
        decode(png((height, width, rows[:-1]), depth=8, colour_type=2, interlaced=1))


@pytest.mark.parametrize("missing", [1, 15])
@pytest.mark.parametrize(
    ("depth", "colour_type", "num_bytes"),
    [(8, 2, 48), (8, 0, 16), (16, 4, 64), (1, 0, 2), (8, 3, 16)],
)
def test_a_picture_whose_last_rows_are_missing_is_refused(
    depth: int, colour_type: int, num_bytes: int, *, missing: int
) -> None:
    palette = [(b"PLTE", bytes(range(48)))] if colour_type == 3 else []
    encode = partial(png, depth=depth, colour_type=colour_type, chunks=palette)
    rows = [bytes(num_bytes)] * 16
    assert decode(encode((16, 16, rows))).size == (16, 16)
    # The stream itself ends well, which decoders take for the end of the picture.
    with pytest.raises(InvalidImageError, match="its PNG file is cut short or damaged"):
        decode(encode((16, 16, rows[missing:])))


def test_cmyk_becomes_rgb_and_not_its_negative() -> None:
    found = pixels(encoded(logo().convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert found[20, 30].tolist() == [255, 255, 255]
    assert np.abs(found[2, 20].astype(int) - RED).max() <= 3
