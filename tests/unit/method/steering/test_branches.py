"""Where a change of a branch goes: to its last linear only if the branch returns just that."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from app.method.steering.branches import BranchOutput
from app.method.steering.taps import Tap


class _Branch(nn.Module):
    def __init__(self, finish: Callable[[Tensor], object], *, name: str = "down_proj") -> None:
        super().__init__()
        self.add_module(name, nn.Linear(4, 4))
        self._last = self.get_submodule(name)
        self._finish = finish

    def forward(self, hidden: Tensor, **_unused: object) -> object:
        return self._finish(self._last(hidden))


def _overwritten(hidden: Tensor) -> Tensor:
    return hidden.mul_(3)


_ENDINGS: dict[str, tuple[Callable[[Tensor], object], bool]] = {
    "as it is": (lambda hidden: hidden, True),
    "in a tuple": (lambda hidden: (hidden, None), True),
    "scaled": (lambda hidden: hidden * 3, False),
    "overwritten": (_overwritten, False),
    "copied": (lambda hidden: hidden.clone(), False),
}


def _plain(output: object) -> Tensor:
    hidden = output[0] if isinstance(output, tuple) else output
    assert isinstance(hidden, Tensor)
    return hidden


@pytest.mark.parametrize("ending", list(_ENDINGS))
@pytest.mark.parametrize("name", ["down_proj", "o_proj", "out"])
@torch.no_grad()
def test_the_branch_is_changed_the_same_before_and_after_it_settles(ending: str, name: str) -> None:
    finish, is_last = _ENDINGS[ending]
    branch = _Branch(finish, name=name)
    last, hidden = branch.get_submodule(name), torch.randn(2, 1, 4)
    bare, bare_last = _plain(branch(hidden)), last(hidden)

    output = BranchOutput(branch, lambda found: found + 1)
    first = branch(hidden)
    assert output.settle()
    then = branch(hidden)

    torch.testing.assert_close(_plain(first), bare + 1, rtol=0, atol=0)
    torch.testing.assert_close(_plain(then), bare + 1, rtol=0, atol=0)
    assert isinstance(then, tuple) == (ending == "in a tuple")
    is_at_last = not torch.equal(last(hidden), bare_last)
    assert is_at_last == (is_last and name != "out")

    output.remove()
    assert torch.equal(_plain(branch(hidden)), bare)
    assert "forward" not in vars(branch)
    assert "forward" not in vars(last)


@torch.no_grad()
def test_nothing_is_decided_before_a_pass_was_seen() -> None:
    branch = _Branch(lambda hidden: hidden)
    output = BranchOutput(branch, lambda found: found + 1)

    assert not output.settle()

    branch(torch.randn(1, 1, 4))
    assert output.settle()


@torch.no_grad()
def test_watching_keeps_nothing_of_a_pass() -> None:
    branch = _Branch(lambda hidden: hidden)
    output = BranchOutput(branch, lambda found: found + 1)
    watched: list[weakref.ref[Tensor]] = []

    def noted(found: Tensor) -> Tensor:
        watched.append(weakref.ref(found))
        return found

    watch = Tap(branch.get_submodule("down_proj"), noted)

    branch(torch.randn(1, 1, 4))

    assert [one() for one in watched] == [None]
    watch.remove()
    output.remove()


@torch.no_grad()
def test_two_changes_of_one_branch_add_up_and_go_in_any_order() -> None:
    branch, hidden = _Branch(lambda hidden: hidden), torch.randn(1, 1, 4)
    bare = _plain(branch(hidden))

    first = BranchOutput(branch, lambda found: found + 1)
    branch(hidden)
    first.settle()
    second = BranchOutput(branch, lambda found: found + 2)
    together = _plain(branch(hidden))
    second.settle()
    settled = _plain(branch(hidden))
    first.remove()
    alone = _plain(branch(hidden))

    torch.testing.assert_close(together, bare + 1 + 2)
    torch.testing.assert_close(settled, bare + 1 + 2)
    torch.testing.assert_close(alone, bare + 2)


def test_gradients_flow_through_a_watched_pass() -> None:
    branch, shift = _Branch(lambda hidden: hidden), torch.zeros(4, requires_grad=True)
    BranchOutput(branch, lambda found: found + shift)

    _plain(branch(torch.randn(2, 3, 4))).sum().backward()  # type: ignore[no-untyped-call]  # untyped in torch

    assert shift.grad is not None
    assert torch.equal(shift.grad, torch.full((4,), 6.0))
