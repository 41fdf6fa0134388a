"""What must hold for every family, on tiny random models."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from app.method.steering.injection import ATTENTION, MLP, inject
from app.method.steering.sites import branch_scale, find_sites
from app.method.steering.vectors import TENSOR_NAMES, InContextVectors
from tests.fakes.models.backbones import (
    FAMILIES,
    HIDDEN,
    LAYERS,
    row_of,
    tiny_inputs,
    tiny_model,
)
from tests.fakes.models.steered import (
    TOLERANCE,
    Models,
    Shifts,
    first_of,
    logits_of,
    random_vectors,
    steered_logits,
)

# Branches that end with a projection, where a norm, a gate or the sum of experts ends some.
PROJECTED = {
    "gemma3": 0,
    "gemma4": 0,
    "gemma4_experts": 0,
    "glm4v": 0,
    "mllama": 4,
    "paligemma2": 0,
    "qwen3_vl_moe": 3,
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def generated(model: PreTrainedModel, inputs: dict[str, Tensor], **options: int) -> Tensor:
    generate: Any = model.generate
    ids: Tensor = generate(**inputs, max_new_tokens=5, do_sample=False, **options)
    return ids


@every_family
def test_every_layer_has_both_sites(family: str, model_of: Models) -> None:
    sites = find_sites(model_of(family))
    assert [layer.index for layer in sites] == list(range(LAYERS))
    assert len({id(module) for layer in sites for module in (layer.attention, layer.mlp)}) == 6


@every_family
def test_branches_are_added_to_the_stream_as_they_leave_their_sites(
    family: str, model_of: Models
) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            seen[name] = first_of(output)

        return hook

    def keep_input(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen["in"] = args[0] if args else kwargs["hidden_states"]

    for layer in find_sites(model):
        if layer.is_gated:
            continue
        handles = [
            layer.layer.register_forward_pre_hook(keep_input, with_kwargs=True),
            layer.attention.register_forward_hook(keep("attention")),
            layer.mlp.register_forward_hook(keep("mlp")),
            layer.layer.register_forward_hook(keep("out")),
        ]
        # What Gemma 4 does behind both branches.
        behind = getattr(layer.layer, "post_per_layer_input_norm", None)
        scale = getattr(layer.layer, "layer_scalar", 1.0)
        added = getattr(layer.layer, "residual_multiplier", 1.0)
        if behind is not None:
            handles.append(behind.register_forward_hook(keep("behind")))
        logits_of(model, inputs)
        for handle in handles:
            handle.remove()
        wanted = seen["in"] + added * (seen["attention"] + seen["mlp"]) + seen.pop("behind", 0.0)
        wanted = wanted * scale
        torch.testing.assert_close(seen["out"], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["granite_vision", "llava_next"])
def test_a_shift_reaches_the_stream_as_it_is_also_where_a_layer_scales_what_branches_add(
    family: str, model_of: Models, random_shifts: Shifts
) -> None:
    model, inputs, shifts = model_of(family), tiny_inputs(family, rows=1), random_shifts(1)
    handles: list[RemovableHandle] = []
    for layer, (attention, mlp) in zip(find_sites(model), shifts[0], strict=True):
        # The stream that the second norm reads, and that the layer gives out.
        norm = layer.layer.get_submodule("post_attention_layernorm")
        reads = partial(lambda _module, inputs, by: (inputs[0] + by,), by=attention)
        gives = partial(lambda _module, _inputs, output, by: output + by, by=attention + mlp)
        handles += [norm.register_forward_pre_hook(reads), layer.layer.register_forward_hook(gives)]
    wanted = logits_of(model, inputs)
    for handle in handles:
        handle.remove()
    found = steered_logits(model, inputs, shifts)
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


@every_family
def test_shifts_change_the_output(family: str, model_of: Models, random_shifts: Shifts) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    plain = logits_of(model, inputs)
    for layer in range(LAYERS):
        for branch in (ATTENTION, MLP):
            only = torch.zeros(2, LAYERS, 2, HIDDEN)
            only[:, layer, branch] = random_shifts(2)[:, layer, branch]
            assert (steered_logits(model, inputs, only) - plain).abs().max() > 1e-3


@every_family
def test_zero_rows_are_unsteered_and_leaving_restores_bit_for_bit(
    family: str, model_of: Models, random_shifts: Shifts
) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    plain = logits_of(model, inputs)
    shifts = random_shifts(2)
    assert torch.equal(steered_logits(model, inputs, shifts * 0.0), plain)
    half = shifts.clone()
    half[1] = 0.0
    mixed = steered_logits(model, inputs, half)
    assert torch.equal(mixed[1], plain[1])
    assert not torch.equal(mixed[0], plain[0])
    assert torch.equal(logits_of(model, inputs), plain)


@every_family
def test_a_mixed_batch_equals_each_row_alone(
    family: str, model_of: Models, random_shifts: Shifts
) -> None:
    model, inputs = model_of(family), tiny_inputs(family, rows=3)
    shifts = random_shifts(3) * torch.tensor([1.0, 0.0, -2.0]).view(3, 1, 1, 1)
    together = steered_logits(model, inputs, shifts)
    with inject(model, shifts):
        ids = generated(model, inputs)
    for row in range(3):
        alone, shift = row_of(inputs, row, rows=3), shifts[row : row + 1]
        found = steered_logits(model, alone, shift)
        torch.testing.assert_close(found, together[row : row + 1], atol=TOLERANCE, rtol=0)
        with inject(model, shift):
            assert torch.equal(generated(model, alone)[0], ids[row])


@every_family
def test_generation_with_cache_equals_generation_without(
    family: str, model_of: Models, random_shifts: Shifts
) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    shifts = random_shifts(2)
    with inject(model, shifts) as cached:
        wanted = generated(model, inputs, use_cache=True)
    with inject(model, shifts) as recomputed:
        found = generated(model, inputs, use_cache=False)
    assert cached.num_forwards == recomputed.num_forwards == 5
    assert torch.equal(found, wanted)
    assert not torch.equal(wanted, generated(model, inputs))


def _with_bias(linear: nn.Linear, shift: Tensor) -> None:
    own = torch.zeros_like(shift) if "bias" not in dict(linear.named_parameters()) else linear.bias
    linear.bias = nn.Parameter(own.detach() + shift)


@every_family
def test_shifts_equal_biases_of_the_output_projections(family: str, random_shifts: Shifts) -> None:
    model, inputs = tiny_model(family), tiny_inputs(family)
    shift = random_shifts(1)[0]
    biases: list[tuple[nn.Linear, Tensor]] = []
    for layer in find_sites(model):
        places = ((layer.attention, "self_attn", "o_proj"), (layer.mlp, "mlp", "down_proj"))
        for branch, (site, name, projection) in enumerate(places):
            last = getattr(site, projection, None)
            if site is layer.layer._modules.get(name) and isinstance(last, nn.Linear):
                biases.append((last, shift[layer.index, branch]))
            else:
                shift[layer.index, branch] = 0.0
    wanted = steered_logits(model, inputs, shift[None])
    for last, bias in biases:
        _with_bias(last, bias / branch_scale(model))
    torch.testing.assert_close(logits_of(model, inputs), wanted, atol=TOLERANCE, rtol=0)
    assert len(biases) == PROJECTED.get(family, 2 * LAYERS)


@every_family
def test_gradients_exist_for_exactly_four_tensors(family: str, model_of: Models) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    start = random_vectors(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(0))
    leaves = {name: getattr(start, name).requires_grad_() for name in TENSOR_NAMES}
    with inject(model, InContextVectors(**leaves).shift()[None]):
        model(**inputs, use_cache=False).logits.square().sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    for tensor in leaves.values():
        assert tensor.grad is not None
        assert (tensor.grad.reshape(LAYERS, -1).abs().sum(1) > 0).all()


@every_family
def test_beam_search_repeats_the_shifts_of_rows(
    family: str, model_of: Models, random_shifts: Shifts
) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    shifts = random_shifts(2)
    with inject(model, shifts):
        together = generated(model, inputs, num_beams=3)
    for row in range(2):
        with inject(model, shifts[row : row + 1]):
            alone = generated(model, row_of(inputs, row, rows=2), num_beams=3)
        assert torch.equal(alone[0], together[row])
