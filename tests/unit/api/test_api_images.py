import base64
import contextlib
import io
import json
import zlib
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.api.steer.images import SMALL_CHARACTERS, read_image, read_images
from app.core.errors import (
    InvalidImageError,
    TooLargeError,
)
from app.core.pictures import PictureLimits, check_picture
from app.core.settings import Settings
from app.rpc.generation import refuse_unstorable

LIMITS = PictureLimits(
    max_bytes=200_000,
    max_pixels=1_000_000,
    min_side=8,
    max_side=2000,
    max_aspect=20,
)


def encoded(image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, format=image_format)
    return buffer.getvalue()


def animation() -> bytes:
    buffer = io.BytesIO()
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    first.save(buffer, format="WEBP", save_all=True, append_images=[second])
    return buffer.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + checksum


def png_of(width: int, height: int, *extra: bytes) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    pieces = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces) + png_chunk(b"IEND", b"")


class TestImages:
    @pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
    def test_the_three_formats_are_taken(self, image_format: str) -> None:
        data = encoded(image_format)
        assert read_image(text(data), LIMITS) == (data, False)

    @pytest.mark.parametrize(
        "head",
        [
            "",
            "data:image/png;base64,",
            "data:image/jpg;base64,",
            "data:IMAGE/JPEG;base64,",
            "DATA:image/WEBP;BASE64,",
            "data:image/gif;base64,",
            "data:;base64,",
            "data:image/png;charset=utf-8;base64,",
            "data:image/png;base64;x=y,",
            "data:application/octet-stream;name=a.png;base64,",
        ],
    )
    @pytest.mark.parametrize("line_end", ["\n", "\r\n", " ", "\t"])
    def test_it_may_be_written_as_clients_do(self, head: str, line_end: str) -> None:
        data = encoded("PNG")
        whole = text(data)
        lines = [whole[start : start + 76] for start in range(0, len(whole), 76)]
        assert read_image(head + line_end.join([*lines, ""]), LIMITS) == (data, False)

    @pytest.mark.anyio
    @pytest.mark.parametrize("size", [10, SMALL_CHARACTERS])
    async def test_small_and_large_ones_are_read_alike(self, size: int) -> None:
        data = encoded("PNG") + bytes(size)
        assert await read_images([text(data)] * 2, settings=Settings()) == ((data, data), ())
        with pytest.raises(InvalidImageError, match=r"images\.1: "):
            await read_images([text(data), text(bytes(size))], settings=Settings())

    @pytest.mark.parametrize(
        "head",
        ["data:image/png,", "data:,", "data:image/png;charset=base64,", "data:image/png;base64"],
    )
    def test_other_headers_are_refused(self, head: str) -> None:
        with pytest.raises(InvalidImageError, match="is base64"):
            read_image(head + text(encoded("PNG")), LIMITS)

    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_its_base64_may_be_of_any_kind(self, size: int) -> None:
        data = encoded("PNG") + bytes(range(251, 251 + size))
        whole = base64.b64encode(data).decode()
        assert {"+", "/"} & set(whole)
        url_safe = base64.urlsafe_b64encode(data).decode()
        for written in (whole, whole.rstrip("="), url_safe, url_safe.rstrip("="), quote(whole)):
            assert read_image(f"data:image/png;base64,{written}", LIMITS) == (data, False)

    @pytest.mark.parametrize("image_format", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
    def test_other_formats_are_not(self, image_format: str) -> None:
        with pytest.raises(InvalidImageError, match="PNG, JPEG or WEBP file, found"):
            check_picture(encoded(image_format), LIMITS)

    @pytest.mark.parametrize(
        "data",
        [
            png_of(100_000, 100_000),
            png_of(60_000, 60_000),
            png_of(2**31 - 1, 2**31 - 1),
            png_of(1001, 1000),
            png_of(2001, 200),
            png_of(8, 161),
            png_of(7, 7),
            png_of(0, 0),
            png_of(16, 16, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 80_000_000))),
            b"",
        ],
        ids=range(10),
    )
    def test_bombs_and_odd_shapes_are_refused_by_their_header(self, data: bytes) -> None:
        with pytest.raises(InvalidImageError):
            check_picture(data, LIMITS)

    @given(
        data=st.binary(max_size=300),
        head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF0000WEBPVP8 "]),
    )
    def test_no_bytes_are_worse_than_a_refusal(self, head: bytes, data: bytes) -> None:
        with contextlib.suppress(InvalidImageError):
            check_picture(head + data, LIMITS)

    @given(st.text(max_size=60))
    def test_no_text_is_worse_than_a_refusal(self, given_text: str) -> None:
        with pytest.raises(InvalidImageError):
            read_image(given_text, LIMITS)

    def test_a_large_file_is_refused_before_it_is_decoded(self) -> None:
        with pytest.raises(TooLargeError):
            read_image("!" * 400_000, LIMITS)


@given(st.text())
def test_stored_text_survives_utf8_and_postgres(value: str) -> None:
    storable = "\0" not in value and not any(0xD800 <= ord(c) < 0xE000 for c in value)
    if storable:
        assert refuse_unstorable(value).encode().decode() == value
        return
    with pytest.raises(ValueError, match="the text has"):
        refuse_unstorable(value)


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_tells_of_which_images_one_frame_is_looked_at(
    http: httpx.AsyncClient, *, stream: bool
) -> None:
    asked = {"prompt": "What?", "stream": stream}
    said = []
    for images in ([encoded("PNG"), animation()], [encoded("PNG")] * 2):
        response = await http.post(
            "/steer/generate", json={**asked, "images": list(map(text, images))}
        )
        last = response.text.strip().splitlines()[-1]
        said.append(json.loads(last.removeprefix("data: "))["notes"])
    assert said == [["images.1 is an animation, of which the first frame is taken"], []]
