"""The output of a plain layer's branch, changed where a change costs least.

A branch ends with a linear, and a tap on that is cheaper than one on the branch: the branch takes
many arguments, a linear takes one. But only what the branch returns is known to join the residual
stream. So the first pass is watched: the change moves to the linear when the branch returned the
very tensor that the linear had returned, with the same numbers in it. Otherwise it stays.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from app.method.steering.taps import Tap

Hidden = Float[Tensor, "batch tokens hidden"]

# What the last linear of a branch is called, attention and MLP.
_LAST_LINEARS: Final = ("o_proj", "down_proj")


class BranchOutput:
    """A change of what one branch adds to the residual stream, until `remove`.

    Args:
        branch: The attention or the MLP of a layer that adds its branches as they are.
        change: Returns what shall be added instead.
    """

    def __init__(self, branch: nn.Module, change: Callable[[Hidden], Hidden]) -> None:
        self._change = change
        # What the linear returned, only while the branch that it belongs to is running.
        self._seen: tuple[Hidden, Hidden] | None = None
        self._is_last: bool | None = None
        self._last = next(
            (child for name, child in branch.named_children() if name in _LAST_LINEARS), None
        )
        self._taps = [Tap(branch, self._after_branch)]
        if self._last is not None:
            self._taps.append(Tap(self._last, self._watch))

    def settle(self) -> bool:
        """Decide where the change stays, if a pass has been seen; false when none was."""
        if self._last is None:
            return True
        if self._is_last is None:
            return False
        if self._is_last:
            self.remove()
            self._taps = [Tap(self._last, self._change)]
        else:
            self._taps.pop().remove()
        return True

    def remove(self) -> None:
        """Take the change off."""
        for tap in self._taps:
            tap.remove()

    def _watch(self, output: Hidden) -> Hidden:
        # The copy tells whether the branch writes into what it returns.
        self._seen = (output, output.detach().clone())
        return output

    def _after_branch(self, output: Any) -> object:  # noqa: ANN401 - a tensor or a tuple
        hidden = output[0] if isinstance(output, tuple) else output
        if self._seen is not None:
            (returned, numbers), self._seen = self._seen, None
            self._is_last = hidden is returned and torch.equal(hidden, numbers)
        changed = self._change(hidden)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed
