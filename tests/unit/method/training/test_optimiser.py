import pytest
import torch
from torch import Tensor

from app.method.training.configuration import TrainingConfig
from app.method.training.optimiser import Optimiser

TARGETS = torch.tensor([[3.0, -2.0, 0.5], [0.0, 1.0, -4.0]])
STEPS = 40


def leaves(num_sets: int) -> list[Tensor]:
    vectors = [torch.zeros(num_sets, 1, 3).requires_grad_() for _ in range(2)]
    return [*vectors, *(torch.ones(num_sets, 1).requires_grad_() for _ in range(2))]


def take_steps(optimiser: Optimiser, found: list[Tensor], count: int) -> list[float]:
    """Towards a target of each set's own; the rates of the steps."""
    rates = []
    for _ in range(count):
        attention, mlp, attention_weights, mlp_weights = found
        shift = attention_weights[..., None] * attention + mlp_weights[..., None] * mlp
        away = shift[:, 0] - TARGETS[: len(found[0])]
        rates.append(optimiser.rate)
        optimiser.step(torch.autograd.grad((away**2).sum(), found))
    return rates


def test_rates_rise_and_fall_as_a_cosine_to_zero() -> None:
    found = leaves(1)
    config = TrainingConfig(vector_learning_rate=0.2, warmup_fraction=0.1)
    rates = take_steps(Optimiser(found, config, num_steps=STEPS), found, STEPS)
    assert rates[:5] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert rates[22] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.001


def test_a_set_learns_as_it_would_alone() -> None:
    alone, beside = leaves(1), leaves(2)
    for found in (alone, beside):
        take_steps(Optimiser(found, TrainingConfig(), num_steps=STEPS), found, 7)
    assert alone[0].any()
    for one, other in zip(alone, beside, strict=True):
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("done", [0, 1, 6, 30])
def test_what_was_kept_goes_on_bit_for_bit(done: int) -> None:
    config = TrainingConfig(warmup_fraction=0.1)
    whole, again = leaves(2), leaves(2)
    first = Optimiser(whole, config, num_steps=STEPS)
    take_steps(first, whole, done)
    kept = first.state()
    with torch.no_grad():
        for leaf, other in zip(again, whole, strict=True):
            leaf.copy_(other)
    second = Optimiser(again, config, num_steps=STEPS, done=done)
    second.restore(kept)
    assert take_steps(first, whole, 5) == take_steps(second, again, 5)
    assert all(torch.equal(*pair) for pair in zip(whole, again, strict=True))
