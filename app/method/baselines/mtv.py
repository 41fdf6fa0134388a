"""MTV: what chosen heads give out in context takes its place at the last token of the prompt.

Source: Huang et al. (2024), Multimodal task vectors, arXiv 2406.15334.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from app.method.adaptation.edits import mean_heads, replace_heads
from app.method.adaptation.problem import (
    Adaptation,
    Part,
    Problem,
    best_on_validation,
    encode_parts,
    without_context,
)
from app.method.training.answers import answer_logits
from app.method.training.losses import supervision

_MOST_CONTEXTS: Final = 100
_STEPS: Final = 60
_RATE: Final = 0.1
_QUERIES: Final = 16
_SAMPLES: Final = 4
_CANDIDATES: Final = 8

HeadMask = Bool[Tensor, "layers heads"]


def fit(problem: Problem) -> Adaptation:
    """The heads that REINFORCE finds, of several draws of its policy the best on validation."""
    means = mean_heads(problem, count=_MOST_CONTEXTS, purpose="mtv")
    policy = choose_policy(problem, means)
    candidates = [policy > 0, *_sample(policy, _CANDIDATES, seed=problem.seed)]
    changes = [replace_heads(problem.backbone, means, one) for one in candidates]
    best = best_on_validation(problem, changes)
    chosen = candidates[best]
    return Adaptation(
        kind="last-token",
        num_parameters=int(chosen.sum()) * means.shape[-1],
        applied=changes[best],
        notes={"heads": int(chosen.sum()), "shots": problem.shots},
    )


def choose_policy(
    problem: Problem, means: Float[Tensor, "layers heads width"]
) -> Float[Tensor, "layers heads"]:
    """Log odds that a head is replaced, learned from the loss of labelled items.

    A draw's reward is minus the cross-entropy of the answers, against the mean of its step's draws.
    """
    policy = torch.zeros(means.shape[:2], requires_grad=True)
    optimizer = torch.optim.Adam([policy], lr=_RATE)
    parts = encode_parts(problem, without_context(problem.items[:_QUERIES]))
    for step in range(min(_STEPS, problem.max_steps)):
        drawn = _sample(policy, _SAMPLES, seed=problem.seed * _STEPS + step)
        rewards = torch.tensor(
            [_reward(problem, parts, means=means, heads=heads) for heads in drawn]
        )
        chances = [
            -functional.binary_cross_entropy_with_logits(policy, heads.float(), reduction="sum")
            for heads in drawn
        ]
        optimizer.zero_grad()
        loss = -((rewards - rewards.mean()) * torch.stack(chances)).mean()
        torch.autograd.backward(loss)
        optimizer.step()
    return policy.detach()


def _sample(policy: Float[Tensor, "layers heads"], count: int, *, seed: int) -> list[HeadMask]:
    generator = torch.Generator().manual_seed(seed)
    chances = policy.detach().sigmoid()
    return [torch.bernoulli(chances, generator=generator).bool() for _ in range(count)]


@torch.no_grad()
def _reward(
    problem: Problem,
    parts: list[Part],
    *,
    means: Float[Tensor, "layers heads width"],
    heads: HeadMask,
) -> float:
    losses = []
    for _, batch in parts:
        with replace_heads(problem.backbone, means, heads)(batch):
            logits = answer_logits(problem.backbone, batch)
        losses.append(supervision(logits, batch.targets))
    return -float(torch.cat(losses).mean())
