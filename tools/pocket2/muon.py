"""Muon in single precision: momentum whose matrix is made orthogonal before the step.

Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; the scale of
the step from Liu et al., Muon is scalable for LLM training, 2025. torch's own works in bfloat16,
which costs three times as much on processors without matrix units for it.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_NUM_STEPS: Final = 5
_RMS: Final = 0.2


def orthogonal(
    matrices: Float[Tensor, "count rows columns"],
) -> Float[Tensor, "count rows columns"]:
    """The nearest orthogonal matrices, roughly: singular values between about 0.7 and 1.2."""
    x: Tensor
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    first, second, third = _COEFFICIENTS
    for _ in range(_NUM_STEPS):
        gram = x @ x.mT
        x = first * x + (second * gram + third * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Steps matrices; all parameters are to be of two dimensions."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """One step; matrices of one shape are made orthogonal together."""
        del closure
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                directions = []
                for parameter in parameters:
                    state = self.state[parameter]
                    buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                    gradient = cast("Tensor", parameter.grad)
                    buffer.lerp_(gradient, 1 - group["momentum"])
                    directions.append(gradient.lerp(buffer, group["momentum"]))
                moves = orthogonal(torch.stack(directions))
                rate = group["lr"] * _RMS * max(shape) ** 0.5
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(move, alpha=-rate)
