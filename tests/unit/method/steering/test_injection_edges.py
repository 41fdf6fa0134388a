"""What must hold for every family, on tiny random models."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from app.core.errors import IncompatibleBackboneError, SteeringError
from app.method.steering.injection import InjectionReceipt, ShiftHooks, inject
from app.method.steering.sites import find_sites
from tests.fakes.models.backbones import (
    FAMILIES,
    HIDDEN,
    LAYERS,
    tiny_inputs,
    tiny_model,
)
from tests.fakes.models.steered import (
    TOLERANCE,
    Models,
    Shifts,
    first_of,
    logits_of,
    steered_logits,
)


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
    with inject(model, shifts):
        found = logits_of(model, text_only)
    # Its branches add nothing, so what they are shifted by may be added by the layer before.
    moved = shifts.clone()
    moved[:, 0, 1] += shifts[:, 1].sum(1)
    moved[:, 1] = 0
    torch.testing.assert_close(
        found, steered_logits(model, text_only, moved), atol=TOLERANCE, rtol=0
    )
    assert not torch.allclose(found, logits_of(model, text_only))


def test_recomputed_passes_shift_behind_skipped_layers_too(random_shifts: Shifts) -> None:
    model, inputs = tiny_model("mllama"), tiny_inputs("mllama")
    text_only = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    start = random_shifts(2)

    def gradient() -> Tensor:
        shifts = start.clone().requires_grad_()
        with inject(model, shifts):
            model(**text_only, use_cache=False).logits.square().sum().backward()
        assert shifts.grad is not None
        return shifts.grad

    plain = gradient()
    model.activation_checkpointing_enable()
    model.train()
    torch.testing.assert_close(gradient(), plain)


def test_a_skipped_last_layer_shifts_the_stream_too(random_shifts: Shifts) -> None:
    family = FAMILIES["mllama"]
    config: Any = family.config()
    config.text_config.cross_attention_layers = [LAYERS - 1]
    make: Any = transformers.AutoModelForImageTextToText.from_config
    model = make(config)
    inputs = tiny_inputs("mllama")
    text_only = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    shifts = random_shifts(2)
    with inject(model, shifts):
        found = logits_of(model, text_only)
    moved = shifts.clone()
    moved[:, LAYERS - 2, 1] += shifts[:, LAYERS - 1].sum(1)
    moved[:, LAYERS - 1] = 0
    torch.testing.assert_close(
        found, steered_logits(model, text_only, moved), atol=TOLERANCE, rtol=0
    )


def test_a_block_without_a_pass_is_refused(model_of: Models, random_shifts: Shifts) -> None:
    with (
        pytest.raises(SteeringError, match="found 0 in 0 passes"),
        inject(model_of("llava"), random_shifts(1)),
    ):
        pass


def test_a_pass_that_leaves_a_site_as_it_was_is_refused(random_shifts: Shifts) -> None:
    model = tiny_model("llava")

    def lose_a_hook_on_the_way() -> None:
        with inject(model, random_shifts(2)):
            find_sites(model)[-1].mlp._forward_hooks.clear()
            logits_of(model, tiny_inputs("llava"))

    with pytest.raises(SteeringError, match=f"wanted {2 * LAYERS} sites .* {2 * LAYERS - 1} in 1"):
        lose_a_hook_on_the_way()


def test_what_fails_in_a_block_is_told_rather_than_what_it_left_undone(
    model_of: Models, random_shifts: Shifts
) -> None:
    with pytest.raises(ValueError, match="first"), inject(model_of("llava"), random_shifts(1)):
        raise ValueError("first")


def test_a_receipt_remembers_the_worst_pass() -> None:
    receipt = InjectionReceipt(sites_expected=2)
    for sites in ((0, 1), (0,), (0, 1)):
        receipt.passes.append(set(sites))
    assert (receipt.num_forwards, receipt.sites_hit) == (3, 1)


def test_resident_hooks_do_nothing_beside_their_block(
    model_of: Models, random_shifts: Shifts
) -> None:
    model, inputs, shifts = model_of("idefics3"), tiny_inputs("idefics3"), random_shifts(2)
    plain = logits_of(model, inputs)
    wanted = steered_logits(model, inputs, shifts)
    hooks = ShiftHooks(model)
    try:
        with hooks.applied(None) as receipt:
            assert torch.equal(logits_of(model, inputs), plain)
        assert receipt.num_forwards == 0
        with hooks.applied(shifts):
            assert torch.equal(logits_of(model, inputs), wanted)
        assert torch.equal(logits_of(model, inputs), plain)
    finally:
        hooks.remove()
    assert torch.equal(logits_of(model, inputs), plain)
    assert hooks.num_sites == 2 * LAYERS


def test_a_batch_that_finds_no_room_steers_no_other(
    model_of: Models, random_shifts: Shifts
) -> None:
    class Refused(Tensor):
        def to(self, *_device: object, **_options: object) -> Tensor:
            raise MemoryError

    model, inputs = model_of("idefics3"), tiny_inputs("idefics3")
    plain = logits_of(model, inputs)
    refused = torch.zeros(2, dtype=torch.long).as_subclass(Refused)
    hooks = ShiftHooks(model)
    try:
        with pytest.raises(MemoryError), hooks.applied(random_shifts(2), token_rows=refused):
            pass
        assert torch.equal(logits_of(model, inputs), plain)
    finally:
        hooks.remove()


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
