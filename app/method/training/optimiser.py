"""How gradients move the vectors.

Several sets of vectors learn beside each other and none hears of another's gradient.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.training.configuration import TrainingConfig

# The second moment forgets within 100 steps instead of 1000: runs are a few hundred steps long.
_BETAS: Final = (0.9, 0.99)
_LEAST_NORM: Final = 1e-6


class Optimiser:
    """AdamW with a rate for vectors, one for weights, and a bound on each set's gradient.

    Rates rise, then fall as a cosine to 0 at the last step.
    """

    def __init__(
        self, leaves: Sequence[Tensor], config: TrainingConfig, *, num_steps: int, done: int = 0
    ) -> None:
        from transformers import get_cosine_schedule_with_warmup  # noqa: PLC0415 - brings PEFT

        self._leaves = leaves
        self._clip_norm = config.clip_norm
        peaks = [config.vector_learning_rate, config.weight_learning_rate]
        self._adamw = torch.optim.AdamW(
            [
                {"params": list(some), "lr": peak, "initial_lr": peak}
                for some, peak in zip((leaves[:2], leaves[2:]), peaks, strict=True)
            ],
            betas=_BETAS,
            weight_decay=config.weight_decay,
        )
        self._schedule = get_cosine_schedule_with_warmup(
            self._adamw,
            num_warmup_steps=round(num_steps * config.warmup_fraction),
            num_training_steps=num_steps,
            last_epoch=done - 1,
        )

    @property
    def rate(self) -> float:
        """Learning rate of the vectors in the next step."""
        return float(self._schedule.get_last_lr()[0])

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Moves the leaves in place against their gradients."""
        scale = (self._clip_norm / (set_norms(gradients) + _LEAST_NORM)).clamp_max(1.0)
        for leaf, gradient in zip(self._leaves, gradients, strict=True):
            leaf.grad = gradient * scale.view(-1, *[1] * (gradient.ndim - 1))
        self._adamw.step()
        self._schedule.step()

    def state(self) -> dict[str, Tensor]:
        """Its moments by name, in memory of their own on the CPU."""
        return {
            f"{place}.{key}": value.detach().cpu().clone()
            for place, leaf in enumerate(self._leaves)
            for key, value in self._adamw.state.get(leaf, {}).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes over moments that `state` gave."""
        for place, leaf in enumerate(self._leaves):
            prefix = f"{place}."
            self._adamw.state[leaf] = {
                key: value.clone().to("cpu" if key == "step" else leaf.device)
                for name, value in state.items()
                if name.startswith(prefix) and (key := name.removeprefix(prefix))
            }


def set_norms(tensors: Sequence[Tensor]) -> Float[Tensor, " sets"]:
    """The length of everything that belongs to each set."""
    flat = torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)
    lengths: Float[Tensor, " sets"] = flat.norm(dim=1)
    return lengths
