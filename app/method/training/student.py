"""Moving the vectors so that the backbone answers without demonstrations as it does with them.

Several sets of vectors learn beside each other: a shift belongs to a row, so one pass through the
backbone serves sets that learn from different items.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from app.method.backbone.examples import Episode
from app.method.backbone.features import FeatureCache
from app.method.steering.injection import ATTENTION, MLP, ShiftHooks
from app.method.steering.vectors import TENSOR_NAMES, InContextVectors
from app.method.training.answers import answer_logits
from app.method.training.batches import Row, StudentBatch, StudentBatches
from app.method.training.checkpoints import Checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.losses import (
    TeacherLogProbs,
    mimicry,
    supervision,
    synergy,
)
from app.method.training.optimiser import Optimiser, set_norms
from app.method.training.progress import Steps
from app.method.training.teacher import TeacherCache

LOSS_NAMES: Final = ("total", "mimicry", "synergy", "supervision")
_VECTORS: Final = "vectors."
_OPTIMISER: Final = "optimiser."
_WEIGHTS: Final = TENSOR_NAMES[2:]
_BRANCHES: Final = {"both": (1.0, 1.0), "attention": (1.0, 0.0), "mlp": (0.0, 1.0)}


def sets_of(tensors: Mapping[str, Tensor]) -> list[InContextVectors]:
    """Each set by itself, of tensors that have the sets as their first axis."""
    columns = [tensors[name].unbind(0) for name in TENSOR_NAMES]
    return [
        InContextVectors(**dict(zip(TENSOR_NAMES, one, strict=True)))
        for one in zip(*columns, strict=True)
    ]


class Student:
    """The sets of vectors in training, their optimiser and the hooks that apply them.

    The hooks stay on the backbone until `close`; in between, no gradient reaches anything but the
    vectors and their weights. Weights are learned as multiples of the initial ones, so that one
    rate is right for layers whose streams differ in length.
    """

    def __init__(
        self,
        features: FeatureCache,
        config: TrainingConfig,
        *,
        initial: InContextVectors,
        num_steps: int,
        episodes: Sequence[Episode],
        teacher: TeacherCache,
        num_sets: int,
        done: Checkpoint | None = None,
    ) -> None:
        self._backbone = backbone = features.backbone
        self._config = config
        self._teacher = teacher.on(backbone.device)
        self._batches = StudentBatches(
            features, config, episodes=episodes, teacher=teacher, num_sets=num_sets
        )
        self._num_sets = num_sets
        device = backbone.device
        starts = {name: getattr(initial, name).detach().to(device) for name in TENSOR_NAMES}
        self._units = {
            name: starts[name] * share
            for name, share in zip(_WEIGHTS, _BRANCHES[config.branches], strict=True)
        }
        starts |= {name: torch.ones_like(starts[name]) for name in _WEIGHTS}
        if done is None:
            vectors = {name: torch.stack([start] * num_sets) for name, start in starts.items()}
        else:
            found = done.part(_VECTORS)
            vectors = {name: tensor.to(device, copy=True) for name, tensor in found.items()}
        self._leaves = [vectors[name].requires_grad_() for name in TENSOR_NAMES]
        steps_done = 0 if done is None else done.step
        self._optimiser = Optimiser(self._leaves, config, num_steps=num_steps, done=steps_done)
        if done is not None:
            self._optimiser.restore(done.part(_OPTIMISER))
        self._hooks = ShiftHooks(backbone.model)
        if config.gradient_checkpointing:
            cast("Any", backbone.model).activation_checkpointing_enable()

    def snapshot(self) -> dict[str, Tensor]:
        """All sets as they are, on the CPU, a branch that is not trained with weights of zero."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._tensors().items()}

    @property
    def rate(self) -> float:
        """Learning rate of the vectors in the next step."""
        return self._optimiser.rate

    def close(self) -> None:
        """Takes the hooks off and leaves the backbone as it was."""
        self._hooks.remove()
        if self._config.gradient_checkpointing:
            cast("Any", self._backbone.model).activation_checkpointing_disable()

    def step(self, rows: Sequence[Row], *, view: int = 0) -> Steps[dict[str, float]]:
        """One optimiser step over a batch of queries without their demonstrations.

        `view` says how their pictures are shown (`augmented`); the teacher saw them as they are.

        Returns:
            The losses of the first set before the step, by name.

        Raises:
            SteeringError: The shifts could not be applied in full.
        """
        means = {name: torch.zeros(self._num_sets) for name in ("mimicry", "supervision")}
        gradients = [torch.zeros_like(leaf) for leaf in self._leaves]
        yield from self._batches.prepare(rows, view=view)
        # Every set has its own means, so that it learns as it would alone.
        share, taught = (1 / count for count in self._batches.counts(rows))
        for part in self._batches.parts(rows, view=view):
            with self._bound(part):
                logits = answer_logits(self._backbone, part.batch)
                places = part.is_taught.nonzero().flatten()
                right = supervision(logits, part.batch.targets) * share[part.token_sets]
                near = self._mimicry(logits, self._teacher.rows(part.episodes), places)
                near = near * taught[part.token_sets[places]]
                total = (
                    self._config.mimicry_weight * near.sum()
                    + self._config.supervision_weight * right.sum()
                )
                for gradient, found in zip(
                    gradients, torch.autograd.grad(total, self._leaves), strict=True
                ):
                    gradient.add_(found)
            means["mimicry"].index_add_(0, part.token_sets[places].cpu(), near.detach().cpu())
            means["supervision"].index_add_(0, part.token_sets.cpu(), right.detach().cpu())
            # Whoever has the backbone next needs the memory.
            del logits, near, right, total, found
            yield None
        losses = dict.fromkeys(LOSS_NAMES, 0.0)
        losses |= {name: mean[0].item() for name, mean in means.items()}
        losses["total"] = (
            self._config.mimicry_weight * losses["mimicry"]
            + self._config.supervision_weight * losses["supervision"]
        )
        self._add_synergy(gradients, losses)
        self._optimiser.step(gradients)
        return losses

    @contextmanager
    def _bound(self, part: StudentBatch) -> Iterator[None]:
        """The backbone with the rows' shifts during the block, and as it serves afterwards."""
        if self._config.gradient_checkpointing:
            # Only what trains forgets activations and computes them again; dropout stays off.
            for module in self._backbone.model.modules():
                module.training = bool(getattr(module, "gradient_checkpointing", False))
        try:
            with self._hooks.applied(self.shifts()[part.row_sets]):
                yield None
        finally:
            if self._config.gradient_checkpointing:
                self._backbone.model.train(mode=False)

    def state(self) -> dict[str, Tensor]:
        """Vectors and optimiser moments by name, copied."""
        leaves = zip(TENSOR_NAMES, self._leaves, strict=True)
        tensors = {f"{_VECTORS}{name}": leaf.detach().cpu().clone() for name, leaf in leaves}
        moments = self._optimiser.state().items()
        return tensors | {f"{_OPTIMISER}{name}": tensor for name, tensor in moments}

    def _tensors(self) -> dict[str, Tensor]:
        """All sets as they are, the sets as the first axis."""
        tensors = dict(zip(TENSOR_NAMES, self._leaves, strict=True))
        return tensors | {name: tensors[name] * unit for name, unit in self._units.items()}

    def shifts(self) -> Float[Tensor, "sets layers 2 hidden"]:
        """The shift of every set as it is, through which gradients reach the set."""
        return torch.stack([one.shift() for one in sets_of(self._tensors())])

    def _mimicry(
        self,
        logits: Float[Tensor, "answers vocab"],
        wanted: TeacherLogProbs,
        places: Int[Tensor, " taught"],
    ) -> Float[Tensor, " taught"]:
        if not len(places) or not self._config.mimicry_weight:
            # Without a token to mimic the loss is an exact zero that still has a gradient.
            return logits[places].sum(-1) * 0.0
        return mimicry(logits[places], wanted.rows(places), temperature=self._config.temperature)

    def _add_synergy(self, gradients: Sequence[Tensor], losses: dict[str, float]) -> None:
        weight = self._config.synergy_weight
        if weight == 0 or self._config.branches != "both":
            return
        vectors = [self._leaves[ATTENTION], self._leaves[MLP]]
        each = torch.stack(
            [
                synergy(attention, mlp, gamma=self._config.synergy_gamma)
                for attention, mlp in zip(vectors[0], vectors[1], strict=True)
            ]
        )
        pulls = torch.autograd.grad(each.sum(), vectors)
        bound = (
            self._config.synergy_share * set_norms(gradients) / set_norms(pulls).clamp_min(1e-12)
        )
        factor = bound.clamp_max(weight)[:, None, None]
        for gradient, pull in zip(gradients[:2], pulls, strict=True):
            gradient.add_(pull * factor)
        losses["synergy"] = each[0].item()
        losses["total"] += weight * losses["synergy"]
