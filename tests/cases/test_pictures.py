"""What people see in a picture is what the backbone sees, whichever way it comes in."""

import base64
import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from tests.fakes.servers.installation import Installation
from vlibrary_client import Client

pytestmark = pytest.mark.cases
SAME = 0.99999


def flag(ground: tuple[int, ...] = (255, 255, 255), mode: str = "RGB") -> Image.Image:
    """A yellow stripe on the left and a dark triangle: no turn of it is the same."""
    picture = Image.new(mode, (80, 56), ground)
    draw = ImageDraw.Draw(picture)
    opaque = (255,) * (mode == "RGBA")
    draw.rectangle((0, 0, 13, 55), fill=(240, 200, 0, *opaque))
    draw.polygon([(30, 8), (70, 12), (40, 48)], fill=(20, 40, 90, *opaque))
    return picture


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def tagged(picture: Image.Image, form: str, **options: Any) -> bytes:  # noqa: ANN401
    """Pixels that lie on their side, and EXIF that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture.transpose(Image.Transpose.ROTATE_90), form, exif=exif, **options)


def keyed(picture: Image.Image) -> bytes:
    return encoded(picture, transparency=(0, 255, 0))


def key_of(http: httpx.Client, data: bytes) -> npt.NDArray[np.float64]:
    body = {
        "model": "pocket",
        "input": [""],
        "vlibrary": {"images": [base64.b64encode(data).decode()]},
    }
    reply = http.post("/v1/embeddings", json=body).raise_for_status()
    return np.array(reply.json()["data"][0]["embedding"])


def likeness(http: httpx.Client, one: bytes, other: bytes) -> float:
    left, right = key_of(http, one), key_of(http, other)
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


@pytest.mark.parametrize(
    "make",
    [
        lambda: tagged(flag(), "PNG"),
        lambda: tagged(flag(), "WEBP", lossless=True),
        lambda: encoded(flag((0, 0, 0, 0), "RGBA")),
        lambda: encoded(flag((255, 0, 0, 0), "RGBA"), "WEBP", lossless=True, exact=True),
        lambda: keyed(flag((0, 255, 0))),
    ],
    ids=[
        "png-on-its-side",
        "webp-on-its-side",
        "transparent-png",
        "transparent-webp",
        "colour-key",
    ],
)
def test_files_that_show_the_same_are_seen_the_same(
    http: httpx.Client, make: Callable[[], bytes]
) -> None:
    assert likeness(http, make(), encoded(flag())) >= SAME


def test_a_camera_file_on_its_side_is_seen_as_one_that_stands(http: httpx.Client) -> None:
    # Keys notice what JPEG does to edges, so both are files of the same kind.
    options = {"quality": 100, "subsampling": 0}
    upright = encoded(flag(), "JPEG", **options)
    assert likeness(http, tagged(flag(), "JPEG", **options), upright) >= 0.999
    lying = encoded(flag().transpose(Image.Transpose.ROTATE_90), "JPEG", **options)
    assert likeness(http, lying, upright) < 0.9


def test_an_opaque_picture_never_gets_the_features_of_a_keyed_one(http: httpx.Client) -> None:
    green = flag((0, 255, 0))
    assert likeness(http, keyed(green), encoded(green)) < SAME


def test_sixteen_bits_of_grey_are_scaled(http: httpx.Client) -> None:
    ramp = (np.arange(64, dtype=np.uint16) * 1000)[None].repeat(64, 0)
    eight = encoded(Image.fromarray((ramp >> 8).astype(np.uint8)))
    assert likeness(http, encoded(Image.fromarray(ramp)), eight) >= SAME


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "RGBA", "LA", "P", "1"])
def test_a_pillow_image_means_the_same_through_the_sdk(service: Installation, mode: str) -> None:
    grey = flag().convert("L")
    levels = np.asarray(grey)
    sources = {
        "I;16": Image.fromarray(levels.astype(np.uint16) << 8),
        "I": Image.fromarray(levels.astype(np.int32)),
        "F": Image.fromarray((levels / 255).astype(np.float32)),
    }
    source = sources.get(mode) or flag().convert(mode)
    wanted = grey if mode in sources else source.convert("RGB")
    with Client(service.url, timeout=180) as client:

        def said(image: Image.Image) -> tuple[str, list[tuple[int, float]]]:
            answer = client.steer.generate("What is it?", images=[image], logprobs=1, max_tokens=6)
            return answer.text, [
                (one.token_id, round(one.logprob, 3)) for one in answer.logprobs or ()
            ]

        assert said(source) == said(wanted)


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "AVIF"])
def test_a_format_that_is_not_taken_is_named(http: httpx.Client, form: str) -> None:
    text = base64.b64encode(encoded(flag(), form)).decode()
    reply = http.post("/steer/generate", json={"prompt": "q", "images": [text]})
    assert reply.status_code == 422
    assert f"found {form}" in reply.json()["detail"]


def test_of_several_pictures_the_damaged_one_is_named(http: httpx.Client) -> None:
    good = encoded(Image.effect_noise((64, 64), 60))
    texts = [base64.b64encode(data).decode() for data in (good, good, good[:2000], good)]
    reply = http.post("/steer/generate", json={"prompt": "q", "images": texts})
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("images.2: ")
