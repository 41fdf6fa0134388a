import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.fakes.servers.serving import png
from vlibrary_client import InvalidImageError
from vlibrary_client.images import image_bytes, image_text


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F", "HSV", "YCbCr"])
def test_every_kind_of_picture_can_be_sent(mode: str) -> None:
    with Image.open(io.BytesIO(image_bytes(Image.new(mode, (8, 8), 1)))) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (8, 8))


@pytest.mark.parametrize(("mode", "order"), [("I;16", "<"), ("I;16L", "<"), ("I;16B", ">")])
def test_grey_of_sixteen_bits_keeps_its_levels_in_any_byte_order(mode: str, order: str) -> None:
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    opened = Image.frombytes(mode, (8, 8), levels.astype(f"{order}u2").tobytes())
    with Image.open(io.BytesIO(image_bytes(opened))) as image:
        assert (np.asarray(image) == levels).all()


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP"])
def test_a_pillow_image_of_several_frames_is_the_one_it_stands_at(form: str) -> None:
    first, *rest = (Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue"))
    animation = io.BytesIO()
    first.save(animation, form, save_all=True, append_images=rest)
    with Image.open(animation) as opened:
        opened.seek(1)
        sent = Image.open(io.BytesIO(image_bytes(opened)))
    assert getattr(sent, "n_frames", 1) == 1
    shown = np.asarray(sent.convert("RGB"), dtype=int)
    assert np.abs(shown[4, 4] - (0, 255, 0)).max() <= 8


@pytest.mark.parametrize("place", [0, 20])
@pytest.mark.parametrize("scale", [1, 255])
def test_a_level_that_is_no_number_is_refused_wherever_it_stands(place: int, scale: int) -> None:
    levels = np.linspace(0, scale, 64, dtype=np.float32)
    levels[place] = np.nan
    with pytest.raises(InvalidImageError, match="found nan to nan"):
        image_bytes(Image.fromarray(levels.reshape(8, 8)))


def test_bytes_paths_and_data_urls_are_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    other = "DATA:;base64;x=y,\n" + base64.urlsafe_b64encode(png()).decode().rstrip("=")
    sources = (png(), path, str(path), url, other)
    assert {image_text(source) for source in sources} == {image_text(png())}


@pytest.mark.parametrize(
    "source",
    [
        "http://host/a.png",
        "https://host/a.png",
        "data:image/png,x",
        "data:x;base64,=",
        "data:x;base64,*",
        "/no/file",
        "a\0b",
        np.zeros((8, 8, 3)),
        None,
    ],
)
def test_an_image_that_is_not_here_is_refused(source: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(InvalidImageError):
        image_bytes(source)


@pytest.mark.parametrize(("source", "shown"), [("gone.png", "gone.png"), ("x" * 9000, "x" * 200)])
def test_which_picture_cannot_be_read_is_told(source: str, shown: str) -> None:
    with pytest.raises(InvalidImageError, match=f"cannot read the image file {shown}: "):
        image_bytes(source)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_that_was_opened_stands_as_its_file_says(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("RGB", (64, 32), "red")
    lying.paste("blue", (0, 0, 8, 32))
    buffer = io.BytesIO()
    lying.save(buffer, form, exif=exif)
    with Image.open(buffer) as opened, Image.open(buffer) as again:
        upright = ImageOps.exif_transpose(again)
        sent = Image.open(io.BytesIO(image_bytes(opened)))
    found = np.asarray(ImageOps.exif_transpose(sent).convert("RGB")).astype(int)
    assert found.shape == (64, 32, 3)
    assert np.abs(found - np.asarray(upright.convert("RGB"))).max() == 0
