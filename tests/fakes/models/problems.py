"""A tiny problem for methods to be fitted on, and naive ways to look into a backbone."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from app.method.adaptation.problem import Problem
from app.method.backbone.examples import Episode
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch, encode_prompts
from app.method.training.prompts import episode_prompt
from tests.fakes.models.backbones import tiny_examples


def tiny_problem(backbone: Backbone, *, shots: int = 3) -> Problem:
    """Ten labelled items, six to choose with, three demonstrations."""
    return Problem(
        items=tiny_examples(10),
        validation=tiny_examples(6, seed=5),
        features=FeatureCache(backbone),
        shots=shots,
        seed=3,
        max_steps=8,
    )


def alone(backbone: Backbone, asked: Episode, *, answer: str | None = None) -> EncodedBatch:
    """One prompt by itself, read from pixels, without any padding."""
    answers = None if answer is None else [answer]
    return encode_prompts(backbone, [episode_prompt(backbone, asked, None)], answers=answers)


@torch.no_grad()
def logits(backbone: Backbone, batch: EncodedBatch) -> Tensor:
    found: Tensor = backbone.model(**batch.inputs, use_cache=False).logits
    return found


@torch.no_grad()
def watched(
    backbone: Backbone, batch: EncodedBatch, module: nn.Module, *, inputs: bool = False
) -> Tensor:
    """What a module gives out, or takes in, while it reads the batch."""
    seen: list[Tensor] = []

    def look(_module: nn.Module, given: tuple[Tensor, ...], output: object) -> None:
        out = output[0] if isinstance(output, tuple) else output
        seen.append(cast("Tensor", given[0] if inputs else out))

    handle = module.register_forward_hook(look)
    logits(backbone, batch)
    handle.remove()
    return seen[0]


@torch.no_grad()
def rewritten(
    backbone: Backbone,
    batch: EncodedBatch,
    module: nn.Module,
    *,
    change: Callable[[Tensor], Tensor],
    inputs: bool = False,
) -> Tensor:
    """The logits with what a module gives out, or takes in, rewritten by hand."""

    def after(_module: nn.Module, _given: object, output: Tensor | tuple[Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return (change(output[0].clone()), *output[1:])
        return change(output.clone())

    def before(_module: nn.Module, given: tuple[Tensor, ...]) -> object:
        return (change(given[0].clone()), *given[1:])

    if inputs:
        handle = module.register_forward_pre_hook(before)
    else:
        handle = module.register_forward_hook(after)
    found = logits(backbone, batch)
    handle.remove()
    return found


def assert_near(found: Tensor, wanted: Tensor, *, tolerance: float = 3e-5) -> None:
    """Float32 sums in another order differ by no more than this."""
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=max(1e-4, tolerance))
