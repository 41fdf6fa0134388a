"""Moving the vectors so that the backbone answers without demonstrations as it does with them.

Knows the losses and the optimiser; knows neither how queries were chosen nor where progress goes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from app.method.backbone.batching import token_batches
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.steering.injection import ATTENTION, MLP, ShiftHooks
from app.method.steering.vectors import TENSOR_NAMES, InContextVectors
from app.method.training.checkpoints import Checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.losses import TeacherLogits, mimicry, supervision, synergy
from app.method.training.teacher import Lesson, TeacherCache, answer_logits, lesson_prompt

LOSS_NAMES: Final = ("total", "mimicry", "synergy", "supervision")
# The second moment forgets within 100 steps instead of 1000: runs are a few hundred steps long.
_BETAS: Final = (0.9, 0.99)
_BRANCHES: Final = {"both": (1.0, 1.0), "attention": (1.0, 0.0), "mlp": (0.0, 1.0)}


def rate_factor(step: int, *, num_steps: int, warmup_fraction: float) -> float:
    """The share of the peak learning rate at a step: a linear rise, then a cosine to zero.

    Args:
        step: From 0.
        num_steps: Of the whole run.
        warmup_fraction: Share of the run that rises.
    """
    warmup = max(1, round(num_steps * warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


class Student:
    """The four tensors in training, their optimiser and the hooks that apply them.

    The hooks stay on the backbone until `close`; in between, no gradient reaches anything but the
    four tensors.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: TrainingConfig,
        *,
        initial: InContextVectors,
        features: FeatureCache,
        num_steps: int,
    ) -> None:
        self._backbone = backbone
        self._config = config
        self._features = features
        self._num_steps = num_steps
        device = backbone.device
        self._leaves = [
            getattr(initial, name).detach().to(device).clone().requires_grad_()
            for name in TENSOR_NAMES
        ]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": self._leaves[:2], "lr": config.vector_learning_rate},
                {"params": self._leaves[2:], "lr": config.weight_learning_rate},
            ],
            betas=_BETAS,
            weight_decay=config.weight_decay,
        )
        self._peaks = [config.vector_learning_rate, config.weight_learning_rate]
        mask = torch.tensor(_BRANCHES[config.branches], device=device)
        self._mask: Float[Tensor, "1 2 1"] = mask[None, :, None]
        self._hooks = ShiftHooks(backbone)
        if config.gradient_checkpointing:
            cast("Any", backbone.model).activation_checkpointing_enable()
            backbone.model.train()

    @property
    def vectors(self) -> InContextVectors:
        """A copy of the vectors as they are, a branch that is not trained set to zero."""
        tensors = dict(zip(TENSOR_NAMES, self._leaves, strict=True))
        copies = InContextVectors(**tensors).copied()
        attention, mlp = _BRANCHES[self._config.branches]
        copies["attention_weights"] *= attention
        copies["mlp_weights"] *= mlp
        return InContextVectors(**copies)

    def close(self) -> None:
        """Takes the hooks off and leaves the backbone as it was."""
        self._hooks.remove()
        if self._config.gradient_checkpointing:
            cast("Any", self._backbone.model).activation_checkpointing_disable()
            self._backbone.model.train(mode=False)

    def learning_rate(self, step: int) -> float:
        """The learning rate of the vectors at a step."""
        return self._config.vector_learning_rate * self._factor(step)

    def step(
        self,
        step: int,
        lessons: Sequence[Lesson],
        *,
        teacher: TeacherCache,
        draws: Sequence[int],
        on_pass: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """One optimiser step over a batch of queries without their demonstrations.

        Args:
            step: Number of the step, from 0.
            lessons: The queries; their contexts are not shown.
            teacher: Predictions of the teacher.
            draws: Which of the teacher's lessons belongs to each query.
            on_pass: Called after every pass, while the backbone is unsteered.

        Returns:
            The losses before the step, by name.

        Raises:
            SteeringError: The shifts could not be applied in full.
        """
        losses = dict.fromkeys(LOSS_NAMES, 0.0)
        gradients = [torch.zeros_like(leaf) for leaf in self._leaves]
        queries = [Lesson(query=lesson.query, context=()) for lesson in lessons]
        parts = self._parts(queries)
        is_right = [teacher.is_right[draw] for draw in draws]
        taught = [self._taught_tokens([is_right[r] for r in rows], batch) for rows, batch in parts]
        num_tokens = sum(len(kept) for kept in taught)
        num_taught = sum(int(kept.sum()) for kept in taught)
        for (rows, batch), kept in zip(parts, taught, strict=True):
            loss = self._answer_losses(batch, teacher.rows([draws[row] for row in rows]), kept)
            shares = {
                "mimicry": int(kept.sum()) / max(1, num_taught),
                "supervision": len(kept) / num_tokens,
            }
            total = (
                self._config.mimicry_weight * shares["mimicry"] * loss["mimicry"]
                + self._config.supervision_weight * shares["supervision"] * loss["supervision"]
            )
            for gradient, part in zip(
                gradients, torch.autograd.grad(total, self._leaves), strict=True
            ):
                gradient.add_(part)
            losses["total"] += total.item()
            for name, value in loss.items():
                losses[name] += shares[name] * value.item()
            # Between passes others measure and serve with the same backbone.
            self._hooks.bind(None)
            on_pass()
        self._add_synergy(gradients, losses)
        for leaf, gradient in zip(self._leaves, gradients, strict=True):
            leaf.grad = gradient
        torch.nn.utils.clip_grad_norm_(self._leaves, self._config.clip_norm)
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * self._factor(step)
        self._optimiser.step()
        return losses

    def state(self) -> dict[str, Tensor]:
        """Vectors and optimiser moments by name, copied."""
        tensors: dict[str, Tensor] = {}
        for name, leaf in zip(TENSOR_NAMES, self._leaves, strict=True):
            tensors[f"vectors.{name}"] = leaf.detach().cpu().clone()
            for key, value in self._optimiser.state.get(leaf, {}).items():
                tensors[f"optimiser.{name}.{key}"] = value.detach().cpu().clone()
        return tensors

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint's vectors and moments."""
        for name, leaf in zip(TENSOR_NAMES, self._leaves, strict=True):
            with torch.no_grad():
                leaf.copy_(checkpoint.tensors[f"vectors.{name}"])
            prefix = f"optimiser.{name}."
            self._optimiser.state[leaf] = {
                key.removeprefix(prefix): value.clone().to(
                    "cpu" if key == f"{prefix}step" else leaf.device
                )
                for key, value in checkpoint.tensors.items()
                if key.startswith(prefix)
            }

    def _factor(self, step: int) -> float:
        fraction = self._config.warmup_fraction
        return rate_factor(step, num_steps=self._num_steps, warmup_fraction=fraction)

    def _shift(self) -> Float[Tensor, "layers 2 hidden"]:
        tensors = dict(zip(TENSOR_NAMES, self._leaves, strict=True))
        return InContextVectors(**tensors).shift() * self._mask

    def _parts(self, queries: Sequence[Lesson]) -> list[tuple[list[int], EncodedBatch]]:
        """The batch in passes that fit the budget, each with its rows."""
        prompts = [
            lesson_prompt(self._backbone, query, self._config.instruction) for query in queries
        ]
        lengths = self._features.count_tokens(prompts)
        budget = self._config.token_budget
        parts = []
        for rows in token_batches(lengths, token_budget=budget, max_rows=len(queries)):
            answers = [queries[row].query.answer for row in rows]
            parts.append((rows, self._features.encode([prompts[r] for r in rows], answers=answers)))
        return parts

    def _taught_tokens(
        self, is_right: Sequence[bool], batch: EncodedBatch
    ) -> Bool[Tensor, " answers"]:
        """The answer tokens for which the teacher is to be mimicked."""
        is_all = self._config.mimicry_of == "all"
        rows = torch.tensor([is_all or right for right in is_right])
        counts = torch.tensor([len(ids) for ids in batch.answer_ids])
        return rows.repeat_interleave(counts).to(self._backbone.device)

    def _answer_losses(
        self, batch: EncodedBatch, wanted: TeacherLogits, taught: Bool[Tensor, " answers"]
    ) -> dict[str, Float[Tensor, ""]]:
        receipt = self._hooks.bind(self._shift()[None])
        logits = answer_logits(self._backbone, batch)
        receipt.verify()
        places = taught.nonzero().flatten()
        # Without a token to mimic the loss is an exact zero that still has a gradient.
        divergence = logits.sum() * 0.0
        if len(places):
            divergence = mimicry(
                logits[places], wanted.rows(places), temperature=self._config.temperature
            )
        return {"mimicry": divergence, "supervision": supervision(logits, batch.targets)}

    def _add_synergy(self, gradients: Sequence[Tensor], losses: dict[str, float]) -> None:
        weight = self._config.synergy_weight
        if weight == 0 or self._config.branches != "both":
            return
        vectors = [self._leaves[ATTENTION], self._leaves[MLP]]
        loss = synergy(vectors[0], vectors[1], gamma=self._config.synergy_gamma)
        pulls = torch.autograd.grad(loss, vectors)
        task = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        pull = torch.cat([gradient.flatten() for gradient in pulls]).norm()
        bound = self._config.synergy_share * task / pull.clamp_min(1e-12)
        for gradient, part in zip(gradients[:2], pulls, strict=True):
            gradient.add_(part * bound.clamp_max(weight))
        losses["synergy"] = loss.item()
        losses["total"] += weight * loss.item()
