import math

import pytest
import torch
from torch import Tensor

from app.method.training.configuration import TrainingConfig
from app.method.training.optimisers import LBFGS, AdamW, Optimiser

TARGETS = torch.tensor([[3.0, -2.0, 0.5], [0.0, 1.0, -4.0]])
CURVATURES = torch.tensor([1.0, 30.0, 300.0])


def leaves(num_sets: int) -> list[Tensor]:
    vectors = [torch.zeros(num_sets, 1, 3).requires_grad_() for _ in range(2)]
    return [*vectors, *(torch.ones(num_sets, 1).requires_grad_() for _ in range(2))]


def losses_at(found: list[Tensor]) -> Tensor:
    """A valley of its own for every set, a thousand times steeper one way than the other."""
    away = (found[0] + found[1])[:, 0] - TARGETS[: len(found[0])]
    return (CURVATURES * away**2).sum(-1)


def take_steps(optimiser: Optimiser, found: list[Tensor], count: int) -> Tensor:
    for _ in range(count):
        losses = losses_at(found)
        gradients = torch.autograd.grad(losses.sum(), found[:2])
        still = [torch.zeros_like(leaf) for leaf in found[2:]]
        optimiser.step([*gradients, *still], losses.detach(), rate_factor=1.0)
    return losses_at(found).detach()


def test_curvature_finds_the_end_of_a_narrow_valley() -> None:
    found = leaves(2)
    assert take_steps(LBFGS(found), found, 25).max() < 1e-4
    slow = leaves(2)
    assert take_steps(AdamW(slow, TrainingConfig()), slow, 25).min() > 1


def test_weights_of_layers_stay() -> None:
    found = leaves(2)
    take_steps(LBFGS(found), found, 5)
    assert all(torch.equal(leaf, torch.ones(2, 1)) for leaf in found[2:])


def test_a_set_learns_as_it_would_alone() -> None:
    alone, beside = leaves(1), leaves(2)
    take_steps(LBFGS(alone), alone, 7)
    take_steps(LBFGS(beside), beside, 7)
    assert torch.equal(alone[0][0], beside[0][0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])
def test_a_step_that_went_too_far_is_cut(bad: float) -> None:
    found, too_far = leaves(1), 0
    optimiser = LBFGS(found)
    for _ in range(80):
        losses = losses_at(found)
        gradients = [
            *torch.autograd.grad(losses.sum(), found[:2]),
            *map(torch.zeros_like, found[2:]),
        ]
        # A wall near the way to the end of the valley.
        if (found[0] + found[1])[0, 0, 1] < -2.1:
            too_far += 1
            losses = torch.full_like(losses, bad)
            gradients = [torch.full_like(gradient, bad) for gradient in gradients]
        optimiser.step(gradients, losses.detach(), rate_factor=1.0)
    assert too_far
    assert losses_at(found).item() < 1e-4


def test_who_ends_after_a_step_too_far_keeps_what_was_before_it() -> None:
    found = leaves(2)
    optimiser = LBFGS(found)
    take_steps(optimiser, found, 4)
    before = [leaf.detach().clone() for leaf in found]
    take_steps(optimiser, found, 1)
    optimiser.settle()
    for leaf, place in zip(found, before, strict=True):
        torch.testing.assert_close(leaf, place)
    assert losses_at(found).isfinite().all()


@pytest.mark.parametrize("count", [0, 1, 6, 30])
@pytest.mark.parametrize("kind", ["adamw", "lbfgs"])
def test_what_was_kept_goes_on_bit_for_bit(kind: str, count: int) -> None:
    def fresh(found: list[Tensor]) -> Optimiser:
        return AdamW(found, TrainingConfig()) if kind == "adamw" else LBFGS(found)

    whole, again = leaves(2), leaves(2)
    first = fresh(whole)
    take_steps(first, whole, count)
    kept = first.state()
    with torch.no_grad():
        for leaf, other in zip(again, whole, strict=True):
            leaf.copy_(other)
    second = fresh(again)
    second.restore(kept)
    take_steps(first, whole, 5)
    take_steps(second, again, 5)
    assert all(torch.equal(*pair) for pair in zip(whole, again, strict=True))
