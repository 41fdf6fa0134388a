"""Changing what a module returns, at the least cost that Python allows.

Knows modules and functions; nothing of what is changed or why.

A forward hook sends every call of its module through the slow half of `nn.Module.__call__`, which
takes longer than a small tensor takes to be added. A tap replaces the module's `forward` instead:
parameters, state dict and class of the module stay as they were. Several taps of one module may be
removed in any order.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn
from torch.nn.functional import linear

Change: TypeAlias = Callable[[Any], Any]


@runtime_checkable
class Removable(Protocol):
    """What can be taken off again."""

    def remove(self) -> None:
        """Take it off; harmless when it is off."""


def _over_any(module: nn.Module, changes: list[Change]) -> Change:
    original = module.forward

    def forward(*args: object, **kwargs: object) -> object:
        output = original(*args, **kwargs)
        for change in changes:
            output = change(output)
        return output

    return forward


def _over_linear(module: nn.Module, changes: list[Change]) -> Change:
    """The same for a linear, without the detour by which a module finds its parameters."""
    parameters = module._parameters  # noqa: SLF001 - moving and casting replace what is in it

    def forward(input: Tensor) -> object:  # noqa: A002 - the name that callers may use
        output: Any = linear(input, parameters["weight"], parameters["bias"])  # type: ignore[arg-type]  # a linear has a weight
        for change in changes:
            output = change(output)
        return output

    return forward


class _Taps:
    """All changes of one module's output, and the forward that they were laid over."""

    def __init__(self, module: nn.Module) -> None:
        self.changes: list[Change] = []
        self._module = module
        self._covered = module.__dict__.get("forward")
        is_plain_linear = type(module) is nn.Linear and self._covered is None
        cover = _over_linear if is_plain_linear else _over_any
        self._forward = cover(module, self.changes)
        self._forward.taps = self  # type: ignore[attr-defined]  # so that the next tap finds it
        module.forward = self._forward

    def drop(self, change: Change) -> None:
        """Forget a change, and lay the module bare when it was the last one."""
        if change in self.changes:
            self.changes.remove(change)
        is_bare = not self.changes and self._module.__dict__.get("forward") is self._forward
        if not is_bare:
            return
        if self._covered is None:
            del self._module.forward
        else:
            self._module.forward = self._covered


class Tap:
    """One change of a module's output, until `remove`.

    Args:
        module: Whose output is changed.
        change: Returns what shall be returned; the last tap laid on changes last.
    """

    def __init__(self, module: nn.Module, change: Change) -> None:
        self._change = change
        self._taps: _Taps = getattr(module.forward, "taps", None) or _Taps(module)
        self._taps.changes.append(change)

    def remove(self) -> None:
        """Take the change off; harmless when it is off."""
        self._taps.drop(self._change)
