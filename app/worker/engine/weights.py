"""A second copy of a decoder's weights, in the layout that a CPU multiplies few rows with fastest.

The stock kernel lays a matrix out anew in every pass, which takes as long as multiplying a few rows
with it. Only an engine's passes use the copy; whoever trains or generates beside it uses the
weights themselves.

Source: oneDNN's packed linear, which torch's own compiler uses for weights that do not change.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn

from app.method.backbone.loading import Backbone
from app.method.steering.sites import find_decoder

# Smaller matrices stay in the caches, and calling the other kernel costs more than it saves.
LEAST_ENTRIES: Final = 2**16
# A backbone with more than this is in memory once: there its weights are most of a worker.
MOST_BYTES: Final = 256 * 1024**2
# What a layout is made for; any number of rows can be multiplied with it.
_ROWS: Final = 16
_TOLERANCE: Final = 1e-3

Multiply = Callable[[Tensor], Tensor]


class PackedWeights:
    """The packed linears of one backbone, whose weights must not change from here on.

    Nothing is packed where the kernel or the dtype does not allow it, or where copies would take
    more than `most_bytes` together; matrices of fewer than `least_entries` are left as they are.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        least_entries: int = LEAST_ENTRIES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._is_used = False
        self._linears: list[nn.Linear] = []
        head = backbone.model.get_output_embeddings()  # type: ignore[no-untyped-call]  # in transformers
        eligible = [
            module
            for module in [*find_decoder(backbone.model).modules(), head]
            if _is_eligible(module, least_entries=least_entries)
        ]
        if sum(linear.weight.nbytes for linear in eligible) <= most_bytes:
            for linear in eligible:
                self._pack(linear)

    def __len__(self) -> int:
        return len(self._linears)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Linears use the copies during the block."""
        self._is_used = True
        try:
            yield
        finally:
            self._is_used = False

    def remove(self) -> None:
        """Forget the copies."""
        for linear in self._linears:
            vars(linear).pop("forward", None)
        self._linears.clear()

    def _pack(self, linear: nn.Linear) -> None:
        multiply = _packed(linear)
        if multiply is None:
            return
        original = linear.forward

        def forward(input: Tensor) -> Tensor:  # noqa: A002 - the name that callers may use
            return multiply(input) if self._is_used else original(input)

        linear.forward = forward  # type: ignore[method-assign]  # on the instance, not the class
        self._linears.append(linear)


def _is_eligible(module: object, *, least_entries: int) -> TypeGuard[nn.Linear]:
    return (
        # Subclasses hold their weights in ways of their own.
        type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and module.weight.numel() >= least_entries
    )


@torch.inference_mode()
def _packed(linear: nn.Linear) -> Multiply | None:
    """What multiplies with a packed copy; none when the kernel is missing or disagrees."""
    operations: Any = torch.ops.mkldnn
    try:
        weight = operations._reorder_linear_weight(linear.weight, _ROWS)  # noqa: SLF001 - its only name
        run = operations._linear_pointwise  # noqa: SLF001 - likewise

        def multiply(hidden: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
            product: Tensor = run(hidden, weight, linear.bias, "none", [], "")
            return product

        probe = torch.linspace(-1, 1, linear.in_features)[None]
        wanted = linear(probe)
        error = (multiply(probe) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6)
    except (AttributeError, RuntimeError):
        return None
    return multiply if float(error) < _TOLERANCE else None
