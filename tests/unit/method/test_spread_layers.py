"""Layers on several devices: every number is that of the same backbone on one.

The devices are stand-ins, which compute on the CPU and refuse what real ones refuse.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.method.adaptation.combination import combination_steps
from app.method.adaptation.problem import (
    Adaptation,
    Problem,
    encode_parts,
    measure,
    without_context,
)
from app.method.backbone.embedding import embed
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.experiments.methods import FITTED
from app.method.keys.encoder import KeyEncoder
from app.method.steering.dose import residual_norms
from app.method.steering.greedy import generate_encoded
from app.method.steering.injection import inject
from app.method.steering.sites import find_sites
from app.method.steps import finish
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train
from app.method.training.progress import Reporter
from tests.fakes.models.backbones import (
    FAMILIES,
    HIDDEN,
    LAYERS,
    tiny_backbone,
    tiny_examples,
    tiny_inputs,
    tiny_model,
)
from tests.fakes.models.devices import stand_in, stand_ins
from tests.fakes.models.problems import tiny_problem
from tests.fakes.models.spread import spread_backbone, spread_model
from tests.fakes.models.steered import Shifts, random_vectors
from tests.fakes.models.training_runs import CONFIG, EXAMPLES, FEW, same_vectors


@pytest.fixture
def spread(backbone: Backbone) -> Iterator[Backbone]:
    with stand_ins():
        yield spread_backbone(backbone)


def sharp_backbone() -> Backbone:
    """A backbone whose answers a shift can change."""
    backbone = tiny_backbone()
    with torch.no_grad():
        backbone.model.get_parameter("lm_head.weight").mul_(20)
    return backbone


def test_devices_are_not_mixed() -> None:
    with stand_ins():
        here, there = torch.ones(2, device=stand_in(0)), torch.ones(2, device=stand_in(1))
        with pytest.raises(RuntimeError, match="ipu:0, ipu:1"):
            _ = here + there
        with pytest.raises(RuntimeError, match="cpu, ipu:1"):
            torch.ones(2).add_(there)
        with pytest.raises(RuntimeError, match="ipu:0, ipu:1"):
            _ = here[torch.tensor([1], device=stand_in(1))]
        with pytest.raises(RuntimeError):
            here.numpy()
        assert (here + there.to(here.device) * 2.0).tolist() == [3.0, 3.0]
        assert (here + torch.tensor(1.0))[torch.tensor([1])].cpu().numpy() == [2.0]


def test_layers_lie_on_two_devices_and_all_else_on_a_third(spread: Backbone) -> None:
    lies = [sites.device.index for sites in find_sites(spread.model)]
    assert lies == [1, 2, 2]
    model: Any = spread.model
    layers = model.get_decoder().layers
    inside = {id(one) for one in [*layers.parameters(), *layers.buffers()]}
    others = [*spread.model.parameters(), *spread.model.buffers()]
    assert {one.device for one in others if id(one) not in inside} == {spread.device}
    assert spread.device == stand_in(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_steering_and_its_gradient_are_those_of_one_device(
    family: str, random_shifts: Shifts
) -> None:
    model, inputs, shifts = tiny_model(family), tiny_inputs(family), random_shifts(2)
    wanted = _steered(model, inputs, shifts)
    with stand_ins():
        there = {key: value.to(stand_in(0)) for key, value in inputs.items()}
        # Shifts may lie anywhere; these are on the CPU.
        found = _steered(spread_model(model), there, shifts)
        assert all(map(torch.equal, found, wanted))


def test_layers_that_a_text_skips_shift_it_where_they_lie(random_shifts: Shifts) -> None:
    model, shifts = tiny_model("mllama"), random_shifts(2)
    inputs = {key: tiny_inputs("mllama")[key] for key in ("input_ids", "attention_mask")}
    wanted = _steered(model, inputs, shifts)
    with stand_ins():
        there = {key: value.to(stand_in(0)) for key, value in inputs.items()}
        assert all(map(torch.equal, _steered(spread_model(model), there, shifts), wanted))


def _steered(
    model: PreTrainedModel, inputs: dict[str, Tensor], shifts: Tensor
) -> tuple[Tensor, ...]:
    """Tokens, logits, and what the shifts would have to change for larger ones."""
    leaf = shifts.clone().requires_grad_()
    generate: Any = model.generate
    with inject(model, leaf):
        logits = model(**inputs, use_cache=False).logits
        (gradient,) = torch.autograd.grad(logits.square().mean(), [leaf])
        with torch.inference_mode():
            tokens: Tensor = generate(**inputs, max_new_tokens=4, do_sample=False, num_beams=2)
    return tokens.cpu(), logits.detach().cpu(), gradient.cpu()


@pytest.mark.parametrize(
    "config",
    [
        CONFIG.changed(epochs=1, gradient_checkpointing=True),
        FEW.changed(max_steps=2),
    ],
    ids=["checkpointed", "sets"],
)
def test_a_training_makes_the_vectors_of_one_device(config: TrainingConfig) -> None:
    backbone = sharp_backbone()
    examples = EXAMPLES[:20]
    wanted = train(backbone, examples, config)
    saved: list[bytes] = []
    with stand_ins():
        spread = spread_backbone(backbone)
        found = train(spread, examples, config, on_checkpoint=saved.append)
        resumed = train(spread, examples, config, checkpoint=saved[0])
    assert same_vectors(found, wanted)
    assert same_vectors(resumed, wanted)
    assert found.losses == wanted.losses
    assert found.held_out is not None
    assert wanted.held_out is not None
    assert found.held_out.conditions == wanted.held_out.conditions
    assert (found.dose, found.max_dose) == (wanted.dose, wanted.max_dose)


@pytest.mark.parametrize("method", sorted(FITTED))
def test_a_method_is_fitted_as_on_one_device(method: str, backbone: Backbone) -> None:
    wanted = _fitted(backbone, method)
    with stand_ins():
        assert _fitted(spread_backbone(backbone), method) == wanted


def _fitted(backbone: Backbone, method: str) -> tuple[object, ...]:
    problem = replace(tiny_problem(backbone, shots=2), max_steps=2)
    found: Adaptation = FITTED[method](problem)
    held = encode_parts(problem, without_context(problem.validation))
    texts = []
    for _, batch in encode_parts(problem, without_context(problem.validation), with_answers=False):
        with found.applied(batch):
            texts += generate_encoded(problem.backbone, batch, max_new_tokens=3)
    return measure(problem, held, found.applied), found.notes, found.num_parameters, texts


def test_a_combination_is_chosen_as_on_one_device(backbone: Backbone) -> None:
    def combined(backbone: Backbone) -> tuple[object, ...]:
        generator = torch.Generator().manual_seed(1)
        parts = [
            random_vectors(LAYERS, HIDDEN, generator=generator).scaled(200.0) for _ in range(2)
        ]
        problem = Problem(
            items=tiny_examples(16),
            validation=(),
            features=FeatureCache(backbone),
        )
        steps = combination_steps(problem, parts, rule="weighted", reporter=Reporter())
        made, comparison, _ = finish(steps)
        return made.weights, comparison.conditions

    wanted = combined(backbone)
    with stand_ins():
        assert combined(spread_backbone(backbone)) == wanted


def test_rows_and_doses_are_those_of_one_device(backbone: Backbone, spread: Backbone) -> None:
    items = tiny_examples(4)
    images, questions = [one.image for one in items], [one.question for one in items]
    there, here = FeatureCache(spread), FeatureCache(backbone)
    for make in (embed, lambda one, *asked: KeyEncoder(one).encode(*asked)):
        assert (make(there, images, questions) == make(here, images, questions)).all()
    assert torch.equal(residual_norms(spread), residual_norms(backbone))
