"""Requests, and the two ways to answer them: through the engine, or one by one with `generate`.

Knows the engine's seam - `add`, `step`, `abort` - and nothing of its inside.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from app.core.errors import VLibraryError
from app.core.pictures import Picture
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, build_prompt, encode_prompts
from app.method.steering.injection import ShiftHooks
from app.method.steering.vectors import InContextVectors
from app.rpc.generation import SamplingParams
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence as Row
from app.worker.engine.weights import PackedWeights
from tools.pocket.questions import sample_question
from tools.pocket.world import render_scene, sample_scene

# Large enough to change answers, so that a row with another row's shift would be noticed.
DEVIATION: Final = 0.05
STRENGTHS: Final = (0.5, 1.0, -1.0, 2.0)

Shift = Float[Tensor, "layers 2 hidden"]
Answers = list[tuple[int, ...]]

_numbers = count()


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """One request, prepared: its images are decoded and its prompt is encoded.

    Attributes:
        inputs: The backbone's keyword arguments for this prompt alone.
        shift: What steers it; none leaves it unsteered.
    """

    inputs: Mapping[str, Any]
    shift: Shift | None = None


def image_prompts(backbone: Backbone, num_prompts: int, *, seed: int = 0) -> list[PromptText]:
    """Questions about pictures of the pocket's world, each about a picture of its own."""
    rng = np.random.default_rng(seed)
    prompts = []
    for _ in range(num_prompts):
        scene = sample_scene(rng)
        question = sample_question(scene, rng).text
        prompts.append(build_prompt(backbone, question, Picture.of(render_scene(scene, rng))))
    return prompts


def text_prompts(backbone: Backbone, num_prompts: int, *, seed: int = 0) -> list[PromptText]:
    """Prompts without a picture: a question after one to four others, so that lengths differ."""
    rng = np.random.default_rng(seed)
    prompts = []
    for index in range(num_prompts):
        questions = [sample_question(sample_scene(rng), rng).text for _ in range(1 + index % 4)]
        prompts.append(build_prompt(backbone, " ".join(questions), ()))
    return prompts


def random_vectors(backbone: Backbone, *, seed: int) -> InContextVectors:
    """Vectors that nobody trained; they cost what trained ones cost."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Float[Tensor, "layers hidden"]:
        shape = (backbone.num_layers, backbone.hidden_size)
        return torch.randn(shape, generator=generator) * DEVIATION

    return InContextVectors(
        attention_vectors=noise(),
        mlp_vectors=noise(),
        attention_weights=torch.ones(backbone.num_layers),
        mlp_weights=torch.ones(backbone.num_layers),
    )


def random_shifts(backbone: Backbone, num_shifts: int) -> list[Shift]:
    """Shifts of different vectors at different strengths, on the backbone's device."""
    return [
        random_vectors(backbone, seed=index)
        .shift(STRENGTHS[index % len(STRENGTHS)])
        .to(backbone.device)
        for index in range(num_shifts)
    ]


def from_pixels(
    backbone: Backbone, prompts: Sequence[PromptText], shifts: Sequence[Shift | None]
) -> list[Asked]:
    """Requests whose pictures go through the vision tower each time they are answered."""
    return [
        Asked(inputs=encode_prompts(backbone, [prompt]).inputs, shift=shift)
        for prompt, shift in zip(prompts, shifts, strict=True)
    ]


def from_features(
    backbone: Backbone, prompts: Sequence[PromptText], shifts: Sequence[Shift | None]
) -> list[Asked]:
    """Requests whose pictures have been through the vision tower."""
    cache = FeatureCache(backbone)
    return [
        Asked(inputs=cache.encode([prompt]).inputs, shift=shift)
        for prompt, shift in zip(prompts, shifts, strict=True)
    ]


@contextmanager
def running_engine(backbone: Backbone, *, max_rows: int) -> Iterator[Engine]:
    """An engine as the worker has it, for the block; the backbone is bare afterwards."""
    weights = PackedWeights(backbone)
    engine = Engine(backbone, max_rows=max_rows, weights=weights)
    try:
        yield engine
    finally:
        engine.close()
        weights.remove()


def row_of(asked: Asked, *, num_tokens: int) -> Row:
    """A new sequence of the request, greedy."""
    return Row(
        id=f"bench-{next(_numbers)}",
        inputs=dict(asked.inputs),
        sampling=SamplingParams(max_tokens=num_tokens),
        shift=asked.shift,
    )


def through_engine(engine: Engine, asked: Sequence[Asked], *, num_tokens: int) -> Answers:
    """The answers' tokens, of requests that arrive together.

    Raises:
        VLibraryError: One of them failed.
    """
    rows = [row_of(one, num_tokens=num_tokens) for one in asked]
    for row in rows:
        engine.add(row)
    num_finished = 0
    while num_finished < len(rows):
        for finished in engine.step():
            num_finished += 1
            if finished.error is not None:
                raise finished.error
    return [tuple(row.token_ids) for row in rows]


@contextmanager
def one_by_one(backbone: Backbone) -> Iterator[Callable[[Sequence[Asked], int], Answers]]:
    """Answers requests in turn with the stock `generate()`, the hooks being in place already."""
    hooks = ShiftHooks(backbone.model)
    try:
        yield lambda asked, num_tokens: [
            _generated(backbone, hooks, one, num_tokens=num_tokens) for one in asked
        ]
    finally:
        hooks.remove()


@torch.inference_mode()
def _generated(
    backbone: Backbone, hooks: ShiftHooks, asked: Asked, *, num_tokens: int
) -> tuple[int, ...]:
    run = cast("Callable[..., Tensor]", backbone.model.generate)
    with hooks.applied(None if asked.shift is None else asked.shift[None]):
        ids = run(
            **asked.inputs,
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=list(backbone.eos_token_ids),
            pad_token_id=backbone.tokenizer.pad_token_id,
        )
    found: list[int] = ids[0, asked.inputs["input_ids"].shape[1] :].tolist()
    # The engine turns its answers into text as well.
    backbone.tokenizer.decode(found, skip_special_tokens=True)
    return tuple(found)


def require_equal(wanted: Answers, found: Answers, *, what: str) -> None:
    """Returns when both have the same tokens.

    Raises:
        VLibraryError: They differ; figures of different work are no figures.
    """
    if wanted != found:
        differing = sum(one != other for one, other in zip(wanted, found, strict=True))
        raise VLibraryError(f"{what}: {differing} of {len(wanted)} answers differ in their tokens")
