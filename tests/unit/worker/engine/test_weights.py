"""Packed copies of weights: the same products, for an engine's passes only."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from app.method.steering.sites import find_decoder
from app.worker.engine.engine import Engine
from app.worker.engine.weights import PackedWeights
from tests.fakes.models.alone import RequestSpec, answer_alone, bare_backbone
from tests.fakes.models.traffic import Arrival, run_arrivals

FAMILY = "idefics3"

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]  # in torch
    reason="needs the kernel of oneDNN",
)


def _linears() -> list[nn.Linear]:
    decoder = find_decoder(bare_backbone(FAMILY).model)
    return [module for module in decoder.modules() if isinstance(module, nn.Linear)]


def test_every_linear_of_the_decoder_and_the_head_are_packed() -> None:
    weights = PackedWeights(bare_backbone(FAMILY), least_entries=1)
    assert len(weights) == len(_linears()) + 1
    weights.remove()
    assert all("forward" not in vars(linear) for linear in _linears())


def test_small_matrices_stay_as_they_are() -> None:
    assert len(PackedWeights(bare_backbone(FAMILY))) == 0


def test_a_large_backbone_is_in_memory_once() -> None:
    sizes = [linear.weight.nbytes for linear in _linears()]
    whole = PackedWeights(bare_backbone(FAMILY), least_entries=1, most_bytes=3 * sum(sizes))
    assert len(whole) == len(sizes) + 1
    whole.remove()
    assert len(PackedWeights(bare_backbone(FAMILY), least_entries=1, most_bytes=sum(sizes))) == 0


def test_other_dtypes_stay_as_they_are() -> None:
    model = deepcopy(bare_backbone(FAMILY).model)
    nn.Module.to(model, torch.bfloat16)
    other = replace(bare_backbone(FAMILY), model=model)
    assert len(PackedWeights(other, least_entries=1)) == 0


@pytest.mark.parametrize("has_bias", [True, False])
@torch.inference_mode()
def test_products_agree_and_only_in_use(*, has_bias: bool) -> None:
    linear = _linears()[0]
    bare, bias = linear.forward, linear.bias
    if has_bias:
        linear.bias = nn.Parameter(torch.randn(linear.out_features))
    weights = PackedWeights(bare_backbone(FAMILY), least_entries=1)
    hidden = torch.randn(3, 5, linear.in_features)
    wanted = bare(hidden)

    unused = linear(hidden)
    with weights.in_use():
        used = linear(hidden)
        single = linear(hidden[:, :1])

    assert torch.equal(unused, wanted)
    torch.testing.assert_close(used, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(single, wanted[:, :1], rtol=1e-5, atol=1e-5)
    weights.remove()
    linear.bias = bias


def test_a_missing_kernel_leaves_everything_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert len(PackedWeights(bare_backbone(FAMILY), least_entries=1)) == 0


def test_a_kernel_that_disagrees_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class _Wrong:
        @staticmethod
        def _reorder_linear_weight(weight: torch.Tensor, _rows: int) -> torch.Tensor:
            return weight

        @staticmethod
        def _linear_pointwise(
            hidden: torch.Tensor, weight: torch.Tensor, *_: object
        ) -> torch.Tensor:
            return hidden @ weight.T * 1.01

    monkeypatch.setattr(torch.ops, "mkldnn", _Wrong())
    assert len(PackedWeights(bare_backbone(FAMILY), least_entries=1)) == 0


def test_an_engine_with_packed_weights_writes_what_generate_writes() -> None:
    backbone = bare_backbone(FAMILY)
    weights = PackedWeights(backbone, least_entries=1)
    engine = Engine(backbone, max_rows=4, weights=weights)
    plan = [
        Arrival(spec=RequestSpec(seed=seed, length=5 + seed, vector=seed % 3), joins=seed % 2)
        for seed in range(1, 7)
    ]
    stayed, _ = run_arrivals(engine, plan, family=FAMILY)
    assert not weights._is_used
    engine.close()
    weights.remove()
    assert all("forward" not in vars(linear) for linear in _linears())
    assert len(stayed) == len(plan)
    for arrival, sequence in stayed:
        assert sequence.error is None
        assert tuple(sequence.token_ids) == answer_alone(FAMILY, None, arrival.spec)
        assert sequence.sites_hit == (backbone.description.num_sites if arrival.spec.vector else 0)
