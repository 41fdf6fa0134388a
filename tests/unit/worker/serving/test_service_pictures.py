"""Requests through vector cache, pools, device and engine, and over the worker's HTTP."""

import asyncio
import threading
from typing import Any

import pytest
from PIL import Image
from torch.utils.hooks import RemovableHandle

from app.core.errors import VLibraryError
from app.core.pictures import Picture
from app.core.pixels import decode
from app.library.storage import ObjectStore
from app.method.backbone.context import require_context
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText
from app.rpc.messages import EmbedRequest
from app.worker.serving.preprocessing import MAX_PASS_PICTURES
from tests.fakes.answers import answer_of
from tests.fakes.servers.serving import (
    Parts,
    png,
    request_of,
    running_parts,
)
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio


async def test_pictures_that_were_seen_are_decoded_beside_the_device(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EmbedRequest(images=(png(),), questions=(None,))
    first = await parts.serving.embed(request)
    threads: list[str] = []

    def watched(data: bytes) -> Image.Image:
        threads.append(threading.current_thread().name)
        return decode(data)

    monkeypatch.setattr("app.core.pictures.decode", watched)
    again = await parts.serving.embed(request)
    assert again.embeddings == first.embeddings
    assert threads
    assert not [name for name in threads if "device" in name]


async def test_pictures_of_requests_that_come_together_are_seen_together(
    backbone: Backbone, parts: Parts
) -> None:
    passes: list[int] = []
    model: Any = backbone.model
    counting = model.model.vision_model.register_forward_hook(lambda *_: passes.append(1))
    requests = [request_of(images=[png((shade, 0, 0))]) for shade in range(100, 108)]
    answers = await asyncio.gather(*(answer_of(parts.serving, one) for one in requests))
    counting.remove()
    assert len(answers) == 8
    assert len(passes) < 8


def watch_passes(backbone: Backbone) -> tuple[list[int], RemovableHandle]:
    """Pictures of each vision pass from now on, and what ends the watching."""
    sizes: list[int] = []
    model: Any = backbone.model

    def note(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        sizes.append(len(kwargs["pixel_values"]))

    tower = model.model.vision_model
    return sizes, tower.register_forward_pre_hook(note, with_kwargs=True)


async def test_no_more_pictures_than_allowed_are_seen_in_one_pass(
    backbone: Backbone, objects: ObjectStore
) -> None:
    sizes, counting = watch_passes(backbone)
    async with running_parts(backbone, objects, max_requests=64) as parts:
        requests = [request_of(images=[png((shade, 9, 0))]) for shade in range(60)]
        answers = await asyncio.gather(*(answer_of(parts.serving, one) for one in requests))
    counting.remove()
    assert len(answers) == 60
    assert 1 < max(sizes) <= MAX_PASS_PICTURES


async def test_pictures_that_are_embedded_are_seen_in_passes_between_which_rows_get_their_turns(
    backbone: Backbone, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await parts.serving.embed(EmbedRequest(images=(png((3, 3, 3)),), questions=(None,)))
    sizes, counting = watch_passes(backbone)
    put, seen_by_task = parts.device._put, list[int]()

    def noted(*order: Any) -> None:  # noqa: ANN401
        seen_by_task.append(sum(sizes))
        put(*order)

    monkeypatch.setattr(parts.device, "_put", noted)
    count = 2 * MAX_PASS_PICTURES + 1
    files = tuple(png((shade, 3, 7)) for shade in range(count))
    request = EmbedRequest(images=files, questions=(None,) * count)
    first = await parts.serving.embed(request)
    again = await parts.serving.embed(request)
    counting.remove()
    assert first.embeddings == again.embeddings
    assert sizes == [MAX_PASS_PICTURES, 1, MAX_PASS_PICTURES]
    assert {MAX_PASS_PICTURES, MAX_PASS_PICTURES + 1, count} <= {*seen_by_task}


async def test_a_prompt_with_more_pictures_than_one_pass_takes_leaves_none_behind(
    backbone: Backbone, parts: Parts
) -> None:
    sizes, counting = watch_passes(backbone)
    preprocessor = parts.serving._preprocessor
    many = request_of(images=[png((9, shade, 0)) for shade in range(MAX_PASS_PICTURES + 1)])
    prepared = await preprocessor.prepare(many)
    await parts.device.call(lambda: preprocessor.encode(prepared))
    counting.remove()
    assert not preprocessor._waiting
    assert sum(sizes) == MAX_PASS_PICTURES + 1
    assert max(sizes) <= MAX_PASS_PICTURES


async def test_a_pass_takes_fewer_pictures_where_each_is_many_tiles(
    backbone: Backbone, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, counting = watch_passes(backbone)
    preprocessor = parts.serving._preprocessor
    many = request_of(images=[png((7, shade, 0)) for shade in range(7)])
    passes = preprocessor._features.passes
    one = passes.num_values(Picture.of(png((7, 0, 0))).size)
    monkeypatch.setattr("app.method.backbone.pictures.PASS_VALUES", 3 * one)
    prepared = await preprocessor.prepare(many)
    seen_before = list(sizes)
    await parts.device.call(lambda: preprocessor.encode(prepared))
    counting.remove()
    assert (seen_before, sizes) == ([3, 1], [3, 1, 3])


async def test_a_steered_image_request_is_one_task_of_the_device_thread(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its vector is on the device from here on.
    await answer_of(parts.serving, request_of(vectors=[parts.use(0)]))
    tasks: list[object] = []
    put = parts.device._put

    def counted(*order: Any) -> None:  # noqa: ANN401
        tasks.append(order)
        put(*order)

    monkeypatch.setattr(parts.device, "_put", counted)
    await answer_of(parts.serving, request_of(images=[png((1, 2, 3))], vectors=[parts.use(0)]))
    assert len(tasks) == 1


async def test_pictures_of_requests_that_are_gone_are_not_seen(
    backbone: Backbone, parts: Parts
) -> None:
    preprocessor = parts.serving._preprocessor
    pictures = [
        [png((shade, 4, number)) for shade in range(MAX_PASS_PICTURES)] for number in range(3)
    ]
    release = threading.Event()
    holding = asyncio.create_task(parts.device.call(release.wait))
    gone = [
        asyncio.create_task(answer_of(parts.serving, request_of(images=many))) for many in pictures
    ]
    await until(lambda: len(preprocessor._waiting) == 3)
    for one in gone:
        one.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    sizes, counting = watch_passes(backbone)
    asked = asyncio.create_task(answer_of(parts.serving, request_of(images=[png((9, 9, 4))])))
    await until(lambda: len(preprocessor._waiting) == 1)
    release.set()
    await asyncio.gather(holding, asked)
    counting.remove()
    assert sizes == [1]
    assert not preprocessor._waiting


async def test_requests_that_fail_before_their_pictures_are_seen_leave_none_of_them(
    parts: Parts,
) -> None:
    preprocessor = parts.serving._preprocessor
    absent = {**parts.use(0), "sha256": "0" * 64}
    for shade in range(3):
        request = request_of(images=[png((shade, 1, 2))], vectors=[absent])
        with pytest.raises(VLibraryError):
            await answer_of(parts.serving, request)
    assert not preprocessor._waiting


async def test_a_request_that_cannot_be_counted_fails_none_that_came_with_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessor = parts.serving._preprocessor

    def broken(features: FeatureCache, prompt: PromptText, **options: Any) -> None:  # noqa: ANN401
        if "strange" in prompt.text:
            raise RuntimeError("a kernel")
        require_context(features, prompt, **options)

    monkeypatch.setattr("app.worker.serving.preprocessing.require_context", broken)
    release = threading.Event()
    holding = asyncio.create_task(parts.device.call(release.wait))
    asked = [
        asyncio.create_task(answer_of(parts.serving, request_of(prompt=prompt, images=[png()])))
        for prompt in ("what color?", "how strange?", "what shape?")
    ]
    await until(lambda: len(preprocessor._waiting) == len(asked))
    release.set()
    await holding
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(one, VLibraryError) for one in found] == [False, True, False]
