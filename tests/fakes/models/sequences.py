"""Sequences for an engine, and the engine run until they have ended."""

from collections.abc import Callable

from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, build_prompt, encode_prompts
from app.rpc.generation import SamplingParams
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence


def run(engine: Engine, sequences: list[Sequence]) -> list[Sequence]:
    for sequence in sequences:
        engine.add(sequence)
    finished = []
    while engine.has_work:
        finished += engine.step()
    return finished


def greedy(backbone: Backbone, prompts: list[PromptText], **options: int) -> list[Sequence]:
    return [
        Sequence(
            id=str(index),
            inputs=encode_prompts(backbone, [prompt]).inputs,
            sampling=SamplingParams(max_tokens=options.get("max_new_tokens", 8)),
        )
        for index, prompt in enumerate(prompts)
    ]


def maker(backbone: Backbone, name: str, *, max_new_tokens: int = 6) -> Callable[[], Sequence]:
    prompt = build_prompt(backbone, f"what color {name}?", ())

    def make() -> Sequence:
        return Sequence(
            id=name,
            inputs=encode_prompts(backbone, [prompt]).inputs,
            sampling=SamplingParams(max_tokens=max_new_tokens),
        )

    return make
