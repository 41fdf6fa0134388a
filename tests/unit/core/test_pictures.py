"""Whatever a file holds, its pixels are what a viewer shows, or it is refused by name."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw, ImageOps

from app.core.errors import InvalidImageError
from app.core.pictures import Picture, PictureFile, PictureLimits, check_picture
from app.core.pixels import FORMATS, decode, pixel_digest

LIMITS = PictureLimits(
    max_bytes=1 << 20, max_pixels=1_000_000, min_side=8, max_side=4096, max_aspect=20
)
WHITE, RED, BLUE, GREEN = (255, 255, 255), (255, 0, 0), (0, 0, 255), (0, 255, 0)
RAMP = (np.arange(64, dtype=np.uint32) * 1024).astype(np.uint16)[None].repeat(16, 0)


def logo(
    ground: int | tuple[int, ...] = WHITE, *, mode: str = "RGB", size: tuple[int, int] = (40, 24)
) -> Image.Image:
    opaque = (255,) * (mode == "RGBA")
    picture = Image.new(mode, size, ground)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, size[0] - 1, 5), fill=RED + opaque)
    draw.ellipse((4, 8, 16, 20), fill=BLUE + opaque)
    return picture


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 - Pillow's own
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def png(
    samples: tuple[int, int, list[bytes]],
    *,
    depth: int,
    colour_type: int,
    chunks: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG by hand, for what Pillow cannot write; samples are rows of bytes as they are packed."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = samples[0], samples[1]
    rows = b"".join(b"\0" + row for row in samples[2])
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(kind, body) for kind, body in chunks)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    check_picture(data, LIMITS)
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def shows(data: bytes, wanted: Image.Image, *, within: int = 0) -> None:
    found = pixels(data).astype(int)
    expected = np.asarray(wanted.convert("RGB")).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= within


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


def test_cmyk_becomes_rgb_and_not_its_negative() -> None:
    found = pixels(encoded(logo().convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert found[20, 30].tolist() == [255, 255, 255]
    assert np.abs(found[2, 20].astype(int) - RED).max() <= 3


def profile(*, primaries: Sequence[tuple[float, ...]]) -> bytes:
    """An ICC profile of a display with these primaries (XYZ under D50) and a gamma of 2.2."""

    def xyz(values: Sequence[float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    for name, values in zip("rgb", primaries, strict=True):
        tags |= {f"{name}XYZ".encode(): xyz(values), f"{name}TRC".encode(): gamma}
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for code, tag in tags.items():
        table += code + struct.pack(">II", start + len(body), len(tag))
        body += tag
    header = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    header += bytes(12) + b"acsp" + bytes(28) + xyz((0.9642, 1.0, 0.8249))[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


SRGB_PRIMARIES = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))


def test_a_colour_profile_is_followed_to_srgb() -> None:
    red, green, blue = SRGB_PRIMARIES
    swapped = profile(primaries=(green, red, blue))
    for form, options in (("PNG", {}), ("JPEG", {"quality": 100, "subsampling": 0})):
        found = pixels(encoded(logo(), form, icc_profile=swapped, **options))
        assert np.abs(found[2, 20].astype(int) - GREEN).max() <= 6
        assert np.abs(found[14, 10].astype(int) - BLUE).max() <= 6


def test_a_colour_profile_is_followed_beside_transparency_and_orientation() -> None:
    red, green, blue = SRGB_PRIMARIES
    exif = Image.Exif()
    exif[0x0112] = 3
    picture = logo((0, 0, 0, 0), mode="RGBA")
    swapped = profile(primaries=(green, red, blue))
    found = pixels(encoded(picture, icc_profile=swapped, exif=exif.tobytes()))
    assert np.abs(found[21, 20].astype(int) - GREEN).max() <= 6
    assert found[3, 3].tolist() == [255, 255, 255]


def test_a_profile_that_is_srgb_changes_no_pixel() -> None:
    colours = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    )
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    shows(encoded(colours, icc_profile=srgb), colours)


def test_a_damaged_profile_is_left_aside() -> None:
    shows(encoded(logo(), icc_profile=b"no profile at all" * 20), logo())


def test_a_cameras_file_of_several_frames_is_its_first() -> None:
    first = logo()
    data = encoded(first, "MPO", save_all=True, append_images=[first.resize((16, 16))], quality=100)
    header = check_picture(data, LIMITS)
    assert (header.format, header.is_animated) == ("JPEG", False)
    assert decode(data).size == first.size


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken_and_told(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(logo(), form, save_all=True, append_images=[logo(GREEN)], **options)
    assert check_picture(data, LIMITS).is_animated
    assert not check_picture(encoded(logo(), form), LIMITS).is_animated
    shows(data, logo())


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "AVIF"])
def test_another_format_is_refused_by_its_name(form: str) -> None:
    with pytest.raises(InvalidImageError, match=f"found {form}$"):
        check_picture(encoded(logo(), form), LIMITS)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"", "an empty file"),
        (b"nothing known", "a damaged file or another format"),
    ],
)
def test_what_is_no_picture_of_ours_is_named(head: bytes, name: str) -> None:
    with pytest.raises(InvalidImageError, match=f"found {name}$"):
        check_picture(head, LIMITS)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_file_that_is_cut_short_is_refused(form: str, share: float) -> None:
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    data = encoded(noise, form)
    with pytest.raises(InvalidImageError):
        pixels(data[: int(len(data) * share)])


def test_one_wrong_byte_in_a_png_is_refused() -> None:
    flat = bytearray(encoded(Image.effect_noise((100, 100), 80), compress_level=0))
    flat[len(flat) // 2] ^= 0xFF
    with pytest.raises(InvalidImageError, match="PNG file is cut short or damaged"):
        pixels(bytes(flat))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((1, 1), "8 to 4096 pixels, found 1 x 1"),
        ((4097, 230), "8 to 4096 pixels"),
        ((400, 10), "20 times as long as wide"),
        ((1200, 1200), "at most 1000000 pixels, found 1440000"),
    ],
)
def test_sizes_and_shapes_are_judged_by_the_header(size: tuple[int, int], words: str) -> None:
    with pytest.raises(InvalidImageError, match=words):
        check_picture(encoded(Image.new("1", size)), LIMITS)


@given(cut=st.integers(0, 300), noise=st.binary(max_size=60), form=st.sampled_from(FORMATS))
def test_damaged_files_are_refused_in_our_own_words(*, cut: int, noise: bytes, form: str) -> None:
    data = encoded(logo(), form)
    assert outcome(data[: cut % len(data)] + noise).startswith(("An image", "RGB"))


def outcome(data: bytes) -> str:
    try:
        check_picture(data, LIMITS)
        return decode(data).mode
    except InvalidImageError as error:
        return error.message


def test_a_file_that_is_too_large_is_not_opened() -> None:
    with pytest.raises(InvalidImageError, match=r"at most 1048576 bytes"):
        check_picture(bytes((1 << 20) + 1), LIMITS)


def test_equal_digests_mean_equal_pixels_and_two_files_of_one_picture_have_equal_pixels() -> None:
    keyed, opaque = encoded(logo(GREEN), transparency=GREEN), encoded(logo(GREEN))
    assert Picture.of(keyed).digest != Picture.of(opaque).digest
    assert pixel_digest(decode(keyed)) != pixel_digest(decode(opaque))
    assert pixel_digest(decode(keyed)) == pixel_digest(
        decode(encoded(logo(), "WEBP", lossless=True))
    )


def test_pictures_lie_in_a_file_once_and_can_be_read_for_as_long_as_they_live() -> None:
    first, second = encoded(logo()), encoded(logo(GREEN))
    file = PictureFile()
    pictures = [file.add(data) for data in (first, second, first)]
    del file
    assert [picture.data for picture in pictures] == [first, second, first]
    assert pictures[0] is pictures[2]
    assert pictures[1].digest == Picture.of(second).digest
