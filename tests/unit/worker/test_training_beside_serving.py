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

from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt, encode_prompts
from app.method.steps import OffDevice
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import TrainingResult, train, training_steps
from app.rpc.generation import SamplingParams
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from app.worker.long_work import LongSteps
from tests.fakes.models.backbones import tiny_examples
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


def _steps(backbone: Backbone, config: TrainingConfig = CONFIG) -> LongSteps[TrainingResult]:
    """A training of which nobody hears what it tells."""
    steps = training_steps(backbone, tiny_examples(40), config)
    answer: Any = None
    while True:
        try:
            event = steps.send(answer)
        except StopIteration as end:
            result: TrainingResult = end.value
            return result
        answer = yield event if isinstance(event, OffDevice) else None


async def test_planning_and_pictures_are_left_to_another_thread(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[str]] = {}

    def watch(module: str, name: str) -> None:
        work = getattr(import_module(module), name)

        def watched(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as they come
            threads.setdefault(name, set()).add(threading.current_thread().name)
            return work(*args, **options)

        monkeypatch.setattr(f"{module}.{name}", watched)

    watch("app.method.training.distillation", "make_plan")
    watch("app.method.training.distillation", "build_task_key")
    watch("app.method.training.prompts", "build_prompt")
    watch("app.method.backbone.pictures", "decode")
    engine = Engine(backbone, max_rows=4)
    device = DeviceThread(engine)
    device.start()
    short = CONFIG.changed(max_steps=2, trial_steps=0, cross_fit_below=0)
    await device.run_background(_steps(backbone, short))
    await asyncio.to_thread(device.stop)
    engine.close()
    # The pictures that every backbone is compared by are drawn, never files of the task.
    assert set(threads) == {"make_plan", "build_task_key", "build_prompt", "decode"}
    assert not [name for name, found in threads.items() if "device" in found]


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
    result = await device.run_background(_steps(backbone))
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
    shared = await device.run_background(_steps(backbone))
    await asyncio.gather(*answers)
    await asyncio.to_thread(device.stop)
    engine.close()
    # Kernels may round differently on another thread's memory; a disturbance would be far larger.
    torch.testing.assert_close(shared.vectors.shift(), alone.vectors.shift(), rtol=1e-3, atol=1e-5)
