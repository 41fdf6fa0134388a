import itertools
import operator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from app.method.steering.taps import Tap

INPUT = torch.ones(2)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_taps_change_in_turn_and_go_in_any_order(order: tuple[int, ...]) -> None:
    module = nn.Identity()
    taps = [Tap(module, partial(operator.mul, factor)) for factor in (2, 3, 5)]
    left = {2, 3, 5}
    assert module(INPUT).tolist() == [30, 30]
    for place in order:
        taps[place].remove()
        taps[place].remove()
        left.remove((2, 3, 5)[place])
        wanted = 1.0
        for factor in left:
            wanted *= factor
        assert module(INPUT).tolist() == [wanted] * 2
    assert "forward" not in module.__dict__


def test_a_forward_that_was_replaced_before_is_put_back() -> None:
    module: Any = nn.Identity()
    # As some libraries do.
    doubled = partial(operator.mul, 2)
    module.forward = doubled
    tap = Tap(module, lambda output: output + 1)
    assert module(INPUT).tolist() == [3, 3]
    tap.remove()
    assert module.forward is doubled


def test_a_forward_that_was_replaced_afterwards_is_left_alone() -> None:
    module: Any = nn.Identity()
    tap = Tap(module, lambda output: output + 1)
    tapped = module.forward
    module.forward = lambda given: 10 * tapped(given)
    tap.remove()
    assert module(INPUT).tolist() == [10, 10]


def test_state_and_class_stay_as_they_were() -> None:
    module = nn.Linear(2, 2)
    keys = list(module.state_dict())
    tap = Tap(module, lambda output: output)
    assert list(module.state_dict()) == keys
    assert type(module) is nn.Linear
    tap.remove()


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_tapped_linear_computes_what_it_did_wherever_its_weights_go(*, has_bias: bool) -> None:
    module, given = nn.Linear(3, 2, bias=has_bias), torch.randn(4, 3)
    Tap(module, lambda output: output + 1)
    for dtype in (torch.float64, torch.float32):
        module.to(dtype)
        wanted = nn.functional.linear(given.to(dtype), module.weight, module.bias) + 1
        assert torch.equal(module(given.to(dtype)), wanted)
        assert torch.equal(module(input=given.to(dtype)), wanted)
    module.weight = nn.Parameter(torch.zeros(2, 3))
    wanted = nn.functional.linear(given, module.weight, module.bias) + 1
    assert torch.equal(module(given), wanted)
