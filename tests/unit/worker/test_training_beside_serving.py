"""A training and its passes give way to answers: at most one pass between two tokens."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch

from app.core.jobs import METHODS
from app.core.pixels import decode
from app.library.storage import ObjectStore
from app.method.adaptation.combination import combination_steps
from app.method.adaptation.measurement import measurement_steps
from app.method.adaptation.problem import Problem
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt, encode_prompts
from app.method.steps import BackgroundSteps, OffDevice, relayed
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train, training_steps
from app.method.training.progress import Reporter, Steps
from app.rpc.generation import SamplingParams
from app.rpc.messages import EmbedRequest
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from tests.fakes.models.backbones import tiny_backbone, tiny_examples
from tests.fakes.models.steered import random_vectors
from tests.fakes.servers.serving import png, running_parts
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio

CONFIG = TrainingConfig(
    shots=2, num_queries=12, batch_size=12, epochs=3, token_budget=120, held_out_fraction=0.25
)


def _sequence(backbone: Backbone, name: str, on_token: Callable[[], None]) -> Sequence:
    prompt = build_prompt(backbone, "what color?", ())
    sequence = Sequence(
        id=name,
        inputs=encode_prompts(backbone, [prompt]).inputs,
        # A token that was taken once is always taken again.
        sampling=SamplingParams(max_tokens=80, presence_penalty=-2.0),
    )
    append = sequence.append

    def noted(*args: Any, **options: Any) -> None:  # noqa: ANN401 - as they come
        append(*args, **options)
        on_token()

    # A listener is told of what can be shown, which may be later.
    sequence.append = noted  # type: ignore[method-assign]
    return sequence


def _steps(steps: Steps[Any]) -> BackgroundSteps[Any]:
    """The same of which nobody hears what it tells."""
    return relayed(steps, lambda event: event if isinstance(event, OffDevice) else None)


Threads = dict[str, set[str]]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Threads]:
    """The names of the threads that call functions, by the function."""

    def watch(*places: str) -> Threads:
        threads: Threads = {}
        for place in places:
            module, _, name = place.rpartition(".")
            monkeypatch.setattr(place, noting(threads, getattr(import_module(module), name), name))
        return threads

    return watch


def noting(threads: Threads, work: Callable[..., Any], name: str) -> Callable[..., Any]:
    def noted(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as they come
        threads.setdefault(name, set()).add(threading.current_thread().name)
        return work(*args, **options)

    return noted


async def on_device(backbone: Backbone, steps: BackgroundSteps[Any]) -> None:
    engine = Engine(backbone, max_rows=4)
    device = DeviceThread(engine)
    device.start()
    try:
        await device.run_background(steps)
    finally:
        await asyncio.to_thread(device.stop)
        engine.close()


async def test_planning_and_pictures_are_left_to_another_thread(
    watched: Callable[..., Threads], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody has looked at its background.
    backbone = tiny_backbone()
    threads = watched(
        "app.method.training.distillation.run_identity",
        "app.method.training.distillation.make_plan",
        "app.method.training.plan.majority_hits",
        "app.method.training.distillation.build_task_key",
        "app.method.training.prompts.build_prompt",
        "app.method.training.selection.comparison.balanced_context",
        "app.method.training.selection.comparison.nearest_context",
        "app.method.keys.encoder._background",
        "app.method.keys.encoder.fit_whitening",
    )
    examples = tiny_examples(40)
    files = {picture.data for example in examples for picture in example.pictures}
    noted = noting(threads, decode, "decode")
    # The pictures that every backbone is compared by are drawn, never files of the task.
    monkeypatch.setattr(
        "app.core.pictures.decode", lambda data: (noted if data in files else decode)(data)
    )
    short = CONFIG.changed(max_steps=2, trial_steps=0, cross_fit_below=0)
    await on_device(backbone, _steps(training_steps(backbone, examples, short)))
    assert len(threads) == 10
    assert not [name for name, found in threads.items() if "device" in found]


@pytest.mark.parametrize("kind", ["combination", "measurement"])
async def test_so_are_the_prompts_and_demonstrations_of_jobs_with_stored_vectors(
    kind: str, backbone: Backbone, watched: Callable[..., Threads]
) -> None:
    problem = Problem(
        items=tiny_examples(24),
        validation=(),
        features=FeatureCache(backbone),
        shots=2,
    )
    size = (backbone.num_layers, backbone.hidden_size)
    vectors = random_vectors(*size, generator=torch.Generator().manual_seed(0))
    threads = watched(
        "app.method.training.prompts.build_prompt",
        "app.method.evaluation.conditions.balanced_context",
        "app.method.evaluation.conditions.nearest_context",
    )
    steps: Steps[Any]
    if kind == "combination":
        steps = combination_steps(problem, [vectors] * 2, rule="learned", reporter=Reporter())
    else:
        asked = tiny_examples(30)[24:]
        steps = measurement_steps(problem, asked, vectors, methods=METHODS, reporter=Reporter())
    await on_device(backbone, _steps(steps))
    assert len(threads) == (1 if kind == "combination" else 3)
    assert not [name for name, found in threads.items() if "device" in found]


async def test_the_first_embedding_leaves_its_background_to_another_thread(
    objects: ObjectStore, watched: Callable[..., Threads]
) -> None:
    threads = watched(
        "app.method.keys.encoder._background", "app.method.keys.encoder.fit_whitening"
    )
    request = EmbedRequest(images=(png(),), questions=("what color?",))
    async with running_parts(tiny_backbone(), objects) as parts:
        embed = parts.serving.embed
        first, second = await asyncio.gather(embed(request), embed(request))
    assert first.embeddings == second.embeddings
    assert len(threads) == 2
    assert not [name for name, found in threads.items() if "device" in found]


async def test_short_work_goes_before_a_training_that_is_under_way(backbone: Backbone) -> None:
    engine = Engine(backbone, max_rows=1)
    device = DeviceThread(engine)
    device.start()
    is_over = threading.Event()

    def training() -> BackgroundSteps[None]:
        while not is_over.is_set():
            yield None

    def short() -> BackgroundSteps[int]:
        yield None
        return 3

    working = asyncio.create_task(device.run_background(training()))
    await until(lambda: device.num_passes > 0)
    assert await device.run_background(short(), goes_first=True) == 3
    assert not working.done()
    is_over.set()
    await working
    await asyncio.to_thread(device.stop)
    engine.close()


async def test_no_two_passes_of_a_training_come_between_two_tokens(backbone: Backbone) -> None:
    engine = Engine(backbone, max_rows=4)
    device = DeviceThread(engine, training_share=0.5)
    course: list[str] = []
    counting = backbone.model.register_forward_pre_hook(lambda *_: course.append("pass"))
    device.start()

    async def answer_on() -> None:
        count = 0
        while True:
            count += 1
            name = f"answer-{count}"
            make = partial(_sequence, backbone, name, lambda: course.append("token"))
            await device.generate(name, make)
            course.append("end")

    answering = asyncio.create_task(answer_on())
    await until(lambda: "token" in course)
    began = len(course)
    result = await device.run_background(
        _steps(training_steps(backbone, tiny_examples(40), CONFIG))
    )
    ended = len(course)
    answering.cancel()
    counting.remove()
    await asyncio.to_thread(device.stop)
    engine.close()
    assert result.vectors is not None
    during = course[began:ended]
    places = [place for place, event in enumerate(during) if event == "token"]
    # Between two answers the event loop decides how long it takes.
    passes = [
        late - early - 1 for early, late in pairwise(places) if "end" not in during[early:late]
    ]
    # One pass makes the token itself, and one at most is the training's.
    assert max(passes) == 2
    # The training really ran beside the answers.
    assert passes.count(2) > 20


async def test_a_training_that_is_shared_ends_with_the_vectors_of_one_that_is_not(
    backbone: Backbone,
) -> None:
    alone = train(backbone, tiny_examples(40), CONFIG)
    engine = Engine(backbone, max_rows=4)
    device = DeviceThread(engine)
    device.start()
    answers = [
        asyncio.create_task(
            device.generate(f"{place}", partial(_sequence, backbone, f"{place}", lambda: None))
        )
        for place in range(3)
    ]
    shared = await device.run_background(
        _steps(training_steps(backbone, tiny_examples(40), CONFIG))
    )
    await asyncio.gather(*answers)
    await asyncio.to_thread(device.stop)
    engine.close()
    # Kernels may round differently on another thread's memory; a disturbance would be far larger.
    torch.testing.assert_close(shared.vectors.shift(), alone.vectors.shift(), rtol=1e-3, atol=1e-5)
