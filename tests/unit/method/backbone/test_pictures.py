import io
from collections.abc import Callable

import pytest
from PIL import Image

from app.core.errors import InvalidImageError, InvalidInputError
from app.core.pictures import Picture
from app.method.backbone import pictures as module
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone, backbone_from_parts
from app.method.backbone.pictures import DecodedPictures, VisionPasses, shown_digest
from app.method.backbone.prompts import build_prompt
from tests.fakes.checkpoints.idefics import idefics2
from tests.fakes.checkpoints.parts import Parts, random_model
from tests.fakes.checkpoints.qwen import qwen2_vl


def picture(size: tuple[int, int] = (4, 4), *, shade: int = 0, orientation: int = 1) -> Picture:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(buffer, "PNG", exif=exif)
    return Picture.of(buffer.getvalue())


@pytest.fixture
def passes(backbone: Backbone) -> VisionPasses:
    return VisionPasses(backbone)


def batches(passes: VisionPasses, pictures: list[Picture]) -> list[dict[str, Image.Image]]:
    pixels = DecodedPictures()
    return [group for planned in passes.plan(pictures) for group in pixels.by_size(planned)]


def test_batches_hold_pictures_of_one_size(passes: VisionPasses) -> None:
    sizes = [(4, 4)] * 70 + [(8, 4)] * 3
    found = batches(passes, [picture(size, shade=shade) for shade, size in enumerate(sizes)])
    assert sorted(len(batch) for batch in found) == [3, 6, 64]
    assert all(len({image.size for image in batch.values()}) == 1 for batch in found)


def test_a_picture_on_its_side_is_batched_by_how_it_stands(passes: VisionPasses) -> None:
    found = batches(
        passes, [picture((8, 4)), picture((8, 4), orientation=6), picture((8, 4), shade=1)]
    )
    assert sorted(tuple(image.size for image in batch.values()) for batch in found) == [
        ((4, 8),),
        ((8, 4), (8, 4)),
    ]


def test_batches_are_bounded_by_their_pixels(
    monkeypatch: pytest.MonkeyPatch, passes: VisionPasses
) -> None:
    monkeypatch.setattr(module, "PASS_BYTES", 2 * 4 * 4 * 3)
    found = batches(passes, [picture(shade=shade) for shade in range(5)])
    assert [len(batch) for batch in found] == [2, 2, 1]


def test_kept_pixels_are_bounded_and_the_oldest_go_first() -> None:
    pixels = DecodedPictures(max_bytes=2 * 4 * 4 * 3)
    first, second, third = (picture(shade=shade) for shade in range(3))
    pixels.prefetch([first])
    oldest = pixels.get(first)
    assert pixels.get(first) is oldest
    pixels.prefetch([second, third])
    assert pixels.get(first) is not oldest
    assert pixels.get(second) is pixels.get(second)
    kept = pixels.get(third)
    assert pixels.get(third) is kept
    pixels.drop(third.digest)
    assert pixels.get(third) is not kept


def test_a_picture_larger_than_the_bound_is_decoded_and_not_kept() -> None:
    pixels = DecodedPictures(max_bytes=10)
    pixels.prefetch([picture()])
    assert pixels.get(picture()).size == (4, 4)
    assert pixels._num_bytes == 0


def test_a_damaged_picture_is_refused_whoever_asks(passes: VisionPasses) -> None:
    with pytest.raises(InvalidImageError):
        DecodedPictures().prefetch([Picture.of(b"no picture")])
    with pytest.raises(InvalidImageError):
        batches(passes, [Picture.of(b"no picture")])


def test_files_that_show_the_same_are_told_by_their_pixels() -> None:
    upright, turned = picture((4, 4)), picture((4, 4), orientation=3)
    assert upright.digest != turned.digest
    assert shown_digest(upright) == shown_digest(turned) != shown_digest(picture(shade=9))


@pytest.mark.parametrize(
    ("make", "size", "reason"),
    [(qwen2_vl, (300, 1), "aspect ratio"), (idefics2, (1, 1), "division by zero")],
)
def test_what_a_processor_refuses_is_told_in_its_words_from_the_counting_on(
    make: Callable[[], Parts], size: tuple[int, int], reason: str
) -> None:
    parts = make()
    backbone = backbone_from_parts(random_model(parts), parts.processor, name="tiny")
    cache = FeatureCache(backbone)
    prompt = build_prompt(backbone, "What is it?", picture(size))
    for ask in (cache.count_tokens, cache.encode):
        with pytest.raises(InvalidInputError, match=f"cannot read .*{reason}"):
            ask([prompt])
    with pytest.raises(InvalidInputError, match=f"cannot read .*{reason}"):
        cache.summaries(prompt.images)
