"""LoRA on the text decoder's queries and values, through PEFT.

Source: Hu et al. (2022), LoRA, arXiv 2106.09685; https://github.com/huggingface/peft.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, cast

import torch
from torch import nn

from app.core.errors import ConfigurationError
from app.method.adaptation.fitting import Leaves, Recipe, fit_adaptation
from app.method.adaptation.problem import Adaptation, Problem
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.evaluation.conditions import Applied
from app.method.steering.sites import find_decoder

RANK: Final = 8
_TARGETS: Final = ("q_proj", "v_proj")
_RATE: Final = 0.01


def fit(problem: Problem) -> Adaptation:
    """Adapters of rank 8 that are trained on the true answers.

    Raises:
        ConfigurationError: PEFT is not installed.
    """
    backbone = problem.backbone
    recipe = Recipe(
        start=lambda _generator: fresh_adapters(backbone, seed=problem.seed),
        applied=lambda leaves: _adapting(backbone, leaves),
        rate=_RATE,
    )
    return fit_adaptation(problem, recipe, kind="low-rank", rank=RANK)


def fresh_adapters(backbone: Backbone, *, seed: int) -> Leaves:
    """Adapters as PEFT starts them, by name, in float32 whatever the backbone computes in."""
    with torch.random.fork_rng(), _wrapped(backbone) as wrapped:
        torch.manual_seed(seed)
        for module in wrapped.modules():
            if hasattr(module, "reset_lora_parameters"):
                cast("Any", module).reset_lora_parameters("default", init_lora_weights=True)
        return {
            name: leaf.detach().float().clone()
            for name, leaf in wrapped.named_parameters()
            if "lora_" in name
        }


def _adapting(backbone: Backbone, leaves: Leaves) -> Applied:
    @contextmanager
    def applied(_batch: EncodedBatch) -> Iterator[None]:
        with _wrapped(backbone) as wrapped:
            for name, leaf in leaves.items():
                owner_name, _, own = name.rpartition(".")
                owner = wrapped.get_submodule(owner_name)
                # No parameters any more, so that gradients reach the tensors themselves.
                parameter = owner._parameters.pop(own)  # noqa: SLF001 - torch has no public way
                setattr(owner, own, leaf.to(cast("nn.Parameter", parameter).device))
            yield

    return applied


@contextmanager
def _wrapped(backbone: Backbone) -> Iterator[nn.Module]:
    """The decoder with adapters in it, taken out again at the end."""
    try:
        peft: Any = import_module("peft")
    except ImportError as error:
        raise ConfigurationError(
            "LoRA cannot be trained: wanted the package peft, found none"
        ) from error
    decoder = find_decoder(backbone.model)
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(_TARGETS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.LoraModel(decoder, config, "default")
    wrapped.train(mode=False)
    try:
        yield wrapped
    finally:
        wrapped.unload()
        decoder.requires_grad_(requires_grad=False)
