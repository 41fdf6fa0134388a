"""Training as published trainers do it: every epoch anew, one query at a time, from pixels.

The same queries, draws, losses and optimiser as ours, so that both end with the same vectors: only
what is computed again, and how little at a time, differs.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor
from transformers.optimization import get_cosine_schedule_with_warmup

from app.method.backbone.examples import Episode
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import answer_token_ids, encode_prompts
from app.method.steering.dose import residual_norms
from app.method.steering.injection import inject
from app.method.steering.vectors import TENSOR_NAMES, InContextVectors
from app.method.training.answers import answer_logits
from app.method.training.configuration import TrainingConfig
from app.method.training.loop import initial_vectors
from app.method.training.losses import (
    TeacherLogProbs,
    mimicry,
    supervision,
    synergy,
)
from app.method.training.plan import TrainingPlan, epoch_batches
from app.method.training.prompts import episode_prompt

_BETAS: Final = (0.9, 0.99)
_LEAST_NORM: Final = 1e-6
_LEAST_PULL: Final = 1e-12


def naive_vectors(
    backbone: Backbone,
    plan: TrainingPlan,
    config: TrainingConfig,
    *,
    on_step: Callable[[int], None] = lambda _step: None,
) -> InContextVectors:
    """The vectors after all steps of the plan.

    Args:
        backbone: Stays frozen.
        plan: Queries and draws; one set of vectors, nothing held out.
        config: Settings; the teacher is followed in every episode.
        on_step: Called after each step with how many there were.
    """
    initial = initial_vectors(backbone, norms=residual_norms(backbone), seed=config.seed)
    starts = [getattr(initial, name).to(backbone.device) for name in TENSOR_NAMES]
    # Weights are learned as multiples of the initial ones.
    units = starts[2:]
    leaves = [*starts[:2], *map(torch.ones_like, units)]
    for leaf in leaves:
        leaf.requires_grad_()
    optimizer = torch.optim.AdamW(
        [
            {"params": leaves[:2], "lr": config.vector_learning_rate},
            {"params": leaves[2:], "lr": config.weight_learning_rate},
        ],
        betas=_BETAS,
        weight_decay=config.weight_decay,
    )
    schedule = get_cosine_schedule_with_warmup(
        optimizer, round(plan.num_steps * config.warmup_fraction), plan.num_steps
    )
    lengths = [len(episode.query.question) for episode in plan.episodes[: plan.num_queries]]
    for step in range(plan.num_steps):
        epoch, place = divmod(step, plan.steps_per_epoch)
        batches = epoch_batches(lengths, batch_size=plan.batch_size, epoch=epoch, seed=config.seed)
        episodes = [plan.episodes[plan.episode_of(query, epoch=epoch)] for query in batches[place]]
        gradients = _gradients(backbone, episodes, leaves, units=units, config=config)
        _add_synergy(gradients, leaves, config)
        length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        scale = (config.clip_norm / (length + _LEAST_NORM)).clamp_max(1.0)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient * scale
        optimizer.step()
        schedule.step()
        on_step(step + 1)
    return _vectors([leaf.detach() for leaf in leaves], units)


def _vectors(leaves: Sequence[Tensor], units: Sequence[Tensor]) -> InContextVectors:
    weights = [leaf * unit for leaf, unit in zip(leaves[2:], units, strict=True)]
    return InContextVectors(**dict(zip(TENSOR_NAMES, [*leaves[:2], *weights], strict=True)))


def _gradients(
    backbone: Backbone,
    episodes: list[Episode],
    leaves: list[Tensor],
    *,
    units: list[Tensor],
    config: TrainingConfig,
) -> list[Tensor]:
    """Of the mean loss over the answer tokens of these episodes, one episode after the other."""
    gradients = [torch.zeros_like(leaf) for leaf in leaves]
    tokens = sum(len(answer_token_ids(backbone, episode.query.answer)) for episode in episodes)
    for episode in episodes:
        answers = [episode.query.answer]
        taught = encode_prompts(
            backbone, [episode_prompt(backbone, episode, config.instruction)], answers=answers
        )
        with torch.no_grad():
            teacher = TeacherLogProbs.from_logits(
                answer_logits(backbone, taught), temperature=config.temperature, top_k=0
            )
        alone = Episode(query=episode.query, context=())
        asked = encode_prompts(
            backbone, [episode_prompt(backbone, alone, config.instruction)], answers=answers
        )
        with inject(backbone.model, _vectors(leaves, units).shift()[None]):
            logits = answer_logits(backbone, asked)
        near = mimicry(logits, teacher, temperature=config.temperature).sum()
        right = supervision(logits, asked.targets).sum()
        loss = (config.mimicry_weight * near + config.supervision_weight * right) / tokens
        for gradient, found in zip(gradients, torch.autograd.grad(loss, leaves), strict=True):
            gradient.add_(found)
    return gradients


def _add_synergy(gradients: list[Tensor], leaves: list[Tensor], config: TrainingConfig) -> None:
    loss = synergy(leaves[0], leaves[1], gamma=config.synergy_gamma)
    pulls = torch.autograd.grad(loss, leaves[:2])
    length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    pull = torch.cat([one.flatten() for one in pulls]).norm().clamp_min(_LEAST_PULL)
    factor = (config.synergy_share * length / pull).clamp_max(config.synergy_weight)
    for gradient, one in zip(gradients[:2], pulls, strict=True):
        gradient.add_(one * factor)
