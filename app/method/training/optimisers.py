"""How gradients move the vectors: AdamW over batches of queries, or L-BFGS over all of them.

Several sets of vectors learn beside each other and none hears of another's gradient.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from app.method.training.configuration import TrainingConfig

# The second moment forgets within 100 steps instead of 1000: runs are a few hundred steps long.
_BETAS: Final = (0.9, 0.99)
_LEAST_NORM: Final = 1e-6
_HISTORY: Final = 20
# A step may go too far: where the loss is above this it is cut to a share of its length.
_MOST_RISE: Final = 1.5
_MOST_ADDED: Final = 0.05
_SHORTER: Final = 0.25
_LISTS: Final = ("old_dirs", "old_stps", "ro")


class AdamW:
    """A rate for vectors, one for weights, and a bound on the length of each set's gradient."""

    def __init__(self, leaves: Sequence[Tensor], config: TrainingConfig) -> None:
        self._leaves = leaves
        self._clip_norm = config.clip_norm
        self._peaks = [config.vector_learning_rate, config.weight_learning_rate]
        self._optimiser = torch.optim.AdamW(
            [{"params": list(leaves[:2])}, {"params": list(leaves[2:])}],
            betas=_BETAS,
            weight_decay=config.weight_decay,
        )

    def step(
        self,
        gradients: Sequence[Tensor],
        losses: Float[Tensor, " sets"],  # noqa: ARG002 - others look at it
        *,
        rate_factor: float,
    ) -> None:
        """One step, which moves the leaves in place.

        Args:
            gradients: Of each leaf.
            losses: Of each set, where the leaves are now.
            rate_factor: Share of the peak learning rates, where there are such rates.
        """
        scale = (self._clip_norm / (set_norms(gradients) + _LEAST_NORM)).clamp_max(1.0)
        for leaf, gradient in zip(self._leaves, gradients, strict=True):
            leaf.grad = gradient * scale.view(-1, *[1] * (gradient.ndim - 1))
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate_factor
        self._optimiser.step()

    def settle(self) -> None:
        """Moves the leaves to a place whose loss is known, for whoever ends here.

        They are there already: a rate is no guess that has to prove itself.
        """

    def state(self) -> dict[str, Tensor]:
        """What it has to remember, by name, in memory of its own on the CPU."""
        return {
            f"{place}.{key}": value.detach().cpu().clone()
            for place, leaf in enumerate(self._leaves)
            for key, value in self._optimiser.state.get(leaf, {}).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave."""
        for place, leaf in enumerate(self._leaves):
            self._optimiser.state[leaf] = {
                key: value.clone().to("cpu" if key == "step" else leaf.device)
                for key, value in _below(state, f"{place}.").items()
            }


class LBFGS:
    """Quasi-Newton steps for the few thousand numbers of a set of vectors.

    Others want the backbone between two passes, so the line search is spread over steps: each goes
    the full length, and the next one cuts it where the loss has risen by much.

    Source: Nocedal (1980), Updating quasi-Newton matrices with limited storage, as in torch.
    """

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self._sets = [
            _OneSet([leaf.detach()[one] for leaf in leaves[:2]]) for one in range(len(leaves[0]))
        ]

    def step(
        self,
        gradients: Sequence[Tensor],
        losses: Float[Tensor, " sets"],
        *,
        rate_factor: float,  # noqa: ARG002 - the curvature says how far to go
    ) -> None:
        """See `AdamW`."""
        for number, (one, loss) in enumerate(zip(self._sets, losses.tolist(), strict=True)):
            one.step([gradient[number] for gradient in gradients[:2]], loss)

    def settle(self) -> None:
        """See `AdamW`."""
        for one in self._sets:
            one.cut(0.0)

    def state(self) -> dict[str, Tensor]:
        """See `AdamW`."""
        return {
            f"{number}.{name}": tensor
            for number, one in enumerate(self._sets)
            for name, tensor in one.state().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `AdamW`."""
        for number, one in enumerate(self._sets):
            one.restore(_below(state, f"{number}."))


class _OneSet:
    """The vectors of one set, which lie in the leaves' memory."""

    def __init__(self, views: Sequence[Tensor]) -> None:
        self._vectors = [nn.Parameter(view) for view in views]
        self._best_loss = math.inf
        self._optimiser = torch.optim.LBFGS(
            self._vectors,
            lr=1.0,
            max_iter=1,
            history_size=_HISTORY,
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], loss: float) -> None:
        if not loss <= _MOST_RISE * self._best_loss + _MOST_ADDED:
            self.cut(_SHORTER)
            return
        self._best_loss = min(loss, self._best_loss)
        for vector, gradient in zip(self._vectors, gradients, strict=True):
            vector.grad = gradient.clone()
        self._optimiser.step(lambda: loss)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def cut(self, share: float) -> None:
        """Leaves this share of the last step, if there was one."""
        last = self._optimiser.state[self._vectors[0]]
        if "d" not in last:
            return
        sizes = [vector.numel() for vector in self._vectors]
        for vector, step in zip(self._vectors, last["d"].split(sizes), strict=True):
            vector.sub_(step.view_as(vector) * last["t"] * (1 - share))
        last["t"] = last["t"] * share

    def state(self) -> dict[str, Tensor]:
        found = {"best_loss": torch.tensor(self._best_loss, dtype=torch.float64)}
        for key, value in self._optimiser.state_dict()["state"].get(0, {}).items():
            if key in _LISTS:
                found |= {f"{key}.{place}": item.cpu() for place, item in enumerate(value)}
            elif isinstance(value, Tensor):
                found[key] = value.cpu().clone()
            elif isinstance(value, int | float):
                found[key] = torch.tensor(value, dtype=torch.float64)
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        device = self._vectors[0].device
        near = {name: tensor.clone().to(device) for name, tensor in state.items()}
        self._best_loss = float(near.pop("best_loss"))
        if not near:
            return
        kept: dict[str, Any] = {
            key: [near.pop(f"{key}.{place}") for place in range(_count(near, key))]
            for key in _LISTS
        }
        kept |= {
            key: tensor.item() if tensor.dtype == torch.float64 else tensor
            for key, tensor in near.items()
        }
        state_dict = self._optimiser.state_dict()
        self._optimiser.load_state_dict({**state_dict, "state": {0: kept}})


Optimiser: TypeAlias = AdamW | LBFGS


def set_norms(tensors: Sequence[Tensor]) -> Float[Tensor, " sets"]:
    """The length of everything that belongs to each set."""
    flat = torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)
    lengths: Float[Tensor, " sets"] = flat.norm(dim=1)
    return lengths


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _count(names: Mapping[str, Tensor], prefix: str) -> int:
    return sum(name.startswith(f"{prefix}.") for name in names)
