"""What must hold for every family, on tiny random models."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.core.errors import IncompatibleBackboneError, SteeringError
from app.method.steering.injection import ATTENTION, MLP, Receipt, ShiftHooks, inject
from app.method.steering.sites import Layout, find_sites
from app.method.steering.vectors import InContextVectors
from tests.fakes.models.backbones import (
    FAMILIES,
    HIDDEN,
    LAYERS,
    row_of,
    tiny_inputs,
    tiny_model,
)

TOLERANCE = 2e-5
Models = Callable[[str], PreTrainedModel]
Shifts = Callable[..., Tensor]

every_family = pytest.mark.parametrize("family", FAMILIES)


def first_of(output: object) -> Tensor:
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    return first


def logits_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


def steered_logits(model: PreTrainedModel, inputs: dict[str, Tensor], shifts: Tensor) -> Tensor:
    with inject(model, shifts) as receipt:
        logits = logits_of(model, inputs)
    receipt.verify()
    return logits


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
        if layer.layout is Layout.GATED:
            continue
        handles = [
            layer.layer.register_forward_pre_hook(keep_input, with_kwargs=True),
            layer.attention.register_forward_hook(keep("attention")),
            layer.mlp.register_forward_hook(keep("mlp")),
            layer.layer.register_forward_hook(keep("out")),
        ]
        logits_of(model, inputs)
        for handle in handles:
            handle.remove()
        wanted = seen["in"] + seen["attention"] + seen["mlp"]
        torch.testing.assert_close(seen["out"], wanted, atol=1e-5, rtol=1e-5)


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
    cached.verify()
    recomputed.verify()
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
    layouts = [layer.layout for layer in find_sites(model)]
    for index, layout in enumerate(layouts):
        if layout is not Layout.PLAIN:
            shift[index] = 0.0
    wanted = steered_logits(model, inputs, shift[None])
    for layer in find_sites(model):
        if layer.layout is Layout.PLAIN:
            output = layer.attention.get_submodule("o_proj")
            down = layer.mlp.get_submodule("down_proj")
            assert isinstance(output, nn.Linear)
            assert isinstance(down, nn.Linear)
            _with_bias(output, shift[layer.index, ATTENTION])
            _with_bias(down, shift[layer.index, MLP])
    torch.testing.assert_close(logits_of(model, inputs), wanted, atol=TOLERANCE, rtol=0)


@every_family
def test_gradients_exist_for_exactly_four_tensors(family: str, model_of: Models) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    start = InContextVectors.initial(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(0))
    leaves = {name: tensor.requires_grad_() for name, tensor in start.copied().items()}
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
    with inject(model, shifts) as receipt:
        together = generated(model, inputs, num_beams=3)
    receipt.verify()
    for row in range(2):
        with inject(model, shifts[row : row + 1]):
            alone = generated(model, row_of(inputs, row, rows=2), num_beams=3)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("family", ["idefics3", "gemma3", "qwen2_5_vl"])
def test_eager_attention_gives_the_same(
    family: str, model_of: Models, random_shifts: Shifts
) -> None:
    inputs, shifts = tiny_inputs(family), random_shifts(2)
    wanted = steered_logits(model_of(family), inputs, shifts)
    found = steered_logits(tiny_model(family, attention="eager"), inputs, shifts)
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def test_a_closed_gate_does_not_silence_the_shift(random_shifts: Shifts) -> None:
    model, inputs = tiny_model("mllama"), tiny_inputs("mllama")
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            parameter.data.zero_()
    only = torch.zeros(1, LAYERS, 2, HIDDEN)
    only[:, 1] = random_shifts(1)[:, 1]
    difference = steered_logits(model, inputs, only) - logits_of(model, inputs)
    assert difference.abs().max() > 1e-2


def test_a_layer_that_a_text_alone_skips_still_shifts_the_stream(
    model_of: Models, random_shifts: Shifts
) -> None:
    inputs = tiny_inputs("mllama")
    text_only = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    model, shifts = model_of("mllama"), random_shifts(2)
    with inject(model, shifts) as receipt:
        found = logits_of(model, text_only)
    receipt.verify()
    # Its branches add nothing, so what they are shifted by may be added by the layer before.
    moved = shifts.clone()
    moved[:, 0, 1] += shifts[:, 1].sum(1)
    moved[:, 1] = 0
    torch.testing.assert_close(
        found, steered_logits(model, text_only, moved), atol=TOLERANCE, rtol=0
    )
    assert not torch.allclose(found, logits_of(model, text_only))


def test_a_skipped_last_layer_shifts_the_stream_too(random_shifts: Shifts) -> None:
    family = FAMILIES["mllama"]
    config: Any = family.config()
    config.text_config.cross_attention_layers = [LAYERS - 1]
    make: Any = transformers.AutoModelForImageTextToText.from_config
    model = make(config)
    inputs = tiny_inputs("mllama")
    text_only = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    shifts = random_shifts(2)
    with inject(model, shifts) as receipt:
        found = logits_of(model, text_only)
    receipt.verify()
    moved = shifts.clone()
    moved[:, LAYERS - 2, 1] += shifts[:, LAYERS - 1].sum(1)
    moved[:, LAYERS - 1] = 0
    torch.testing.assert_close(
        found, steered_logits(model, text_only, moved), atol=TOLERANCE, rtol=0
    )


def test_a_receipt_without_a_pass_proves_nothing(model_of: Models, random_shifts: Shifts) -> None:
    with inject(model_of("llava"), random_shifts(1)) as receipt:
        pass
    assert receipt.sites_hit == 0
    with pytest.raises(SteeringError):
        receipt.verify()


def test_a_receipt_remembers_the_worst_pass() -> None:
    receipt = Receipt(sites_expected=2)
    for sites in ((0, 1), (0,), (0, 1)):
        receipt.begin_forward().update(sites)
    assert (receipt.num_forwards, receipt.sites_hit) == (3, 1)


def test_resident_hooks_do_nothing_until_bound(model_of: Models, random_shifts: Shifts) -> None:
    model, inputs, shifts = model_of("idefics3"), tiny_inputs("idefics3"), random_shifts(2)
    plain = logits_of(model, inputs)
    wanted = steered_logits(model, inputs, shifts)
    hooks = ShiftHooks(model)
    try:
        unbound = hooks.bind(None)
        assert torch.equal(logits_of(model, inputs), plain)
        assert unbound.num_forwards == 0
        receipt = hooks.bind(shifts)
        assert torch.equal(logits_of(model, inputs), wanted)
        receipt.verify()
        hooks.bind(None)
        assert torch.equal(logits_of(model, inputs), plain)
    finally:
        hooks.remove()
    assert torch.equal(logits_of(model, inputs), plain)
    assert hooks.num_sites == 2 * LAYERS


@pytest.mark.parametrize(
    "shape", [(1, LAYERS + 1, 2, HIDDEN), (1, LAYERS, 2, 8), (0, 3, 2, HIDDEN)]
)
def test_shifts_of_another_backbone_are_refused(shape: tuple[int, ...], model_of: Models) -> None:
    with (
        pytest.raises(IncompatibleBackboneError, match=r"wanted \[rows, 3, 2, 32\]"),
        inject(model_of("llava"), torch.zeros(shape)),
    ):
        pytest.fail("the block must not be entered")


def test_rows_that_do_not_fit_the_batch_are_refused(
    model_of: Models, random_shifts: Shifts
) -> None:
    model, inputs = model_of("llava"), tiny_inputs("llava", rows=3)
    with pytest.raises(SteeringError, match="wanted 3 rows"), inject(model, random_shifts(2)):
        logits_of(model, inputs)
    assert torch.equal(logits_of(model, inputs), logits_of(model, inputs))


def test_hooks_never_write_in_place(model_of: Models, random_shifts: Shifts) -> None:
    model, inputs = model_of("idefics3"), tiny_inputs("idefics3")
    kept: list[Tensor] = []
    copies: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        kept.append(first_of(output))
        copies.append(kept[-1].clone())

    first = find_sites(model)[0]
    handles = [first.attention.register_forward_hook(keep), first.mlp.register_forward_hook(keep)]
    steered_logits(model, inputs, random_shifts(2))
    for handle in handles:
        handle.remove()
    assert len(kept) == 2
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_half_precision_backbones_take_float32_shifts(random_shifts: Shifts) -> None:
    model = tiny_model("idefics3")
    nn.Module.to(model, torch.bfloat16)
    inputs = tiny_inputs("idefics3")
    found = steered_logits(model, inputs, random_shifts(2))
    assert found.dtype == torch.bfloat16
    assert not torch.equal(found, logits_of(model, inputs))
