"""Whatever a file holds, its pixels are what a viewer shows, or it is refused by name."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from app.core.errors import InvalidImageError
from app.core.pictures import Picture, PictureFile, check_picture
from app.core.pixels import FORMATS, decode, pixel_digest
from tests.fakes.files.pictures import (
    BLUE,
    GREEN,
    LIMITS,
    RED,
    encoded,
    logo,
    on_its_side,
    pixels,
    shows,
    with_chunk,
)


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
    assert not check_picture(data, LIMITS)
    assert decode(data).size == first.size


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken_and_told(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(logo(), form, save_all=True, append_images=[logo(GREEN)], **options)
    assert check_picture(data, LIMITS)
    assert not check_picture(encoded(logo(), form), LIMITS)
    shows(data, logo())


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_what_the_first_frame_does_not_cover_is_transparent(form: str) -> None:
    first = Image.new("RGBA", (40, 24), (0, 0, 0, 0))
    first.paste((255, 0, 0, 255), (10, 4, 30, 16))
    options = {"lossless": True} if form == "WEBP" else {}
    later = [Image.new("RGBA", (40, 24), (0, 255, 0, 255))]
    data = encoded(first, form, save_all=True, append_images=later, **options)
    wanted = Image.new("RGB", (40, 24), "white")
    wanted.paste((255, 0, 0), (10, 4, 30, 16))
    shows(data, wanted)
    still = encoded(wanted, form, **options)
    for rest in (b"", b"\0", bytes(12)):
        shows(still + rest, wanted)


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
        (b"\xef\xbb\xbf<!-- Generator: a drawing program -->\n<svg>", "SVG"),
        (b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN"><svg/>', "SVG"),
        (b"<!DOCTYPE html><html><body><svg>", "HTML"),
        (b"P6\n40 24\n255\n", "PPM"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isom", "a video"),
        (b"iVBORw0KGgoAAAANSUhEUgAAACgAAAAY", "a text"),
        (b'{"error": "there is no such file"}', "a text"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"", "an empty file"),
        (b"\x01\x02nothing known", "a damaged file or another format"),
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


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_a_jpeg_that_was_never_filled_is_refused(options: dict[str, Any]) -> None:
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x010E] = "\xff\xd9" * 20
    data = encoded(noise, "JPEG", exif=exif, **options)
    whole = pixels(data)
    assert (pixels(data + bytes(5000)) == whole).all()
    for share in (0.5, 0.9):
        kept = int(len(data) * share)
        with pytest.raises(InvalidImageError, match="JPEG file is cut short or damaged"):
            pixels(data[:kept] + bytes(len(data) - kept))


def progressive(*, num_scans: int, between: bytes = b"") -> bytes:
    """A JPEG whose last scan comes again until it has so many."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), RED).save(buffer, "JPEG", progressive=True)
    head, *scans = buffer.getvalue().removesuffix(b"\xff\xd9").split(b"\xff\xda")
    scans += [scans[-1]] * (num_scans - len(scans))
    return b"\xff\xda".join([head, *(scan + between for scan in scans)]) + b"\xff\xd9"


@pytest.mark.parametrize("between", [b"", b"\xff\xfe\x00\x04\xff\xd9"], ids=["", "false ends"])
def test_a_jpeg_of_many_scans_is_refused_by_its_markers(between: bytes) -> None:
    """Each goes over every pixel, and takes 31 bytes."""
    data = progressive(num_scans=101, between=between)
    with pytest.raises(InvalidImageError, match="at most 100 scans"):
        check_picture(data, LIMITS)


def test_a_jpeg_of_many_segments_is_refused_unread() -> None:
    comments = b"\xff\xfe\x00\x02" * 5_000
    with pytest.raises(InvalidImageError, match="at most 100 scans"):
        check_picture(progressive(num_scans=11, between=comments), LIMITS)


def test_only_scans_of_the_picture_itself_count() -> None:
    """Not what previews, and what phones put behind the picture, look like."""
    data = progressive(num_scans=100)
    noise = b"\xff\xda" * 500
    comment = b"\xff\xfe" + (2 + len(noise)).to_bytes(2) + noise
    data = data[:2] + comment + data[2:] + noise
    assert not check_picture(data, LIMITS)
    decode(data)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt"])
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_long_text_in_a_png_is_no_damage(kind: Literal["zTXt", "iTXt"], before: bytes) -> None:
    packed = zlib.compress(bytes(3 << 20))
    body = b"XML:com.adobe.xmp\0" + (b"\x01\0\0\0" if kind == "iTXt" else b"\0") + packed
    data = with_chunk(encoded(logo()), kind.encode(), body, before=before)
    assert not check_picture(data, LIMITS)
    assert (pixels(data) == np.asarray(logo())).all()


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


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("where", ["exif", "xmp"])
def test_a_size_is_told_as_the_picture_is_shown(form: str, where: Literal["exif", "xmp"]) -> None:
    data = on_its_side(logo(), form, where)
    assert decode(data).size == Picture.of(data).size == logo().size[::-1]


def test_a_picture_may_be_turned_by_what_stands_behind_its_pixels() -> None:
    assert decode(on_its_side(logo(), "PNG", "behind")).size == logo().size[::-1]
