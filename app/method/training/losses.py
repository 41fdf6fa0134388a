"""The three losses that in-context vectors are trained with, and their naive counterparts' rules.

Every reduction is in float32 or wider.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def _wide(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """At least float32; float64 stays, so that gradients can be checked to full precision."""
    return values if values.dtype == torch.float64 else values.float()


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherLogProbs:
    """What the teacher predicts for answer tokens, whole or abridged.

    Attributes:
        log_probs: Log probabilities at the temperature, of the whole vocabulary, or of the most
            likely tokens and, in the last column, of all others together.
        indices: Ids of the most likely tokens; None when nothing was left out.
    """

    log_probs: Float[Tensor, "answers outcomes"]
    indices: Int[Tensor, "answers kept"] | None

    @classmethod
    def from_logits(
        cls, logits: Float[Tensor, "answers vocab"], *, temperature: float, top_k: int
    ) -> "TeacherLogProbs":
        """The log probabilities of logits that predict the answer, divided by the temperature.

        `top_k` outcomes are kept beside their remainder; 0, or as many as the vocabulary has, keeps
        all.
        """
        log_probs = (_wide(logits) / temperature).log_softmax(-1)
        if not 0 < top_k < logits.shape[-1]:
            return cls(log_probs=log_probs, indices=None)
        kept, indices = log_probs.topk(top_k, dim=-1)
        return cls(log_probs=_with_tail(log_probs, indices, kept), indices=indices)

    def rows(self, chosen: Int[Tensor, " rows"]) -> "TeacherLogProbs":
        """These answer tokens only."""
        indices = None if self.indices is None else self.indices[chosen]
        return type(self)(log_probs=self.log_probs[chosen], indices=indices)


def _with_tail(
    log_probs: Float[Tensor, "answers vocab"],
    indices: Int[Tensor, "answers kept"],
    kept: Float[Tensor, "answers kept"],
) -> Float[Tensor, "answers outcomes"]:
    others = log_probs.scatter(-1, indices, -torch.inf)
    return torch.cat([kept, others.logsumexp(-1, keepdim=True)], dim=-1)


def mimicry(
    student: Float[Tensor, "answers vocab"], teacher: TeacherLogProbs, *, temperature: float = 1.0
) -> Float[Tensor, " answers"]:
    """Divergence of the student from the teacher at each answer token, times temperature squared.

    With an abridged teacher all other tokens count as one outcome, which bounds the whole
    divergence from below. Logits of both are those that predict the answer, the end of the turn
    included.

    Source: M2IV, arXiv 2504.04633, the mimicry loss; temperature as in Hinton et al. (2015).
    """
    log_probs = (_wide(student) / temperature).log_softmax(-1)
    if teacher.indices is not None:
        kept = log_probs.gather(-1, teacher.indices)
        log_probs = _with_tail(log_probs, teacher.indices, kept)
    wanted = teacher.log_probs.to(log_probs.dtype)
    divergence = functional.kl_div(log_probs, wanted, log_target=True, reduction="none").sum(-1)
    return temperature**2 * divergence


def supervision(
    student: Float[Tensor, "answers vocab"], targets: Int[Tensor, " answers"]
) -> Float[Tensor, " answers"]:
    """Cross-entropy of each true answer token."""
    return functional.cross_entropy(_wide(student), targets, reduction="none")


def synergy(
    attention_vectors: Float[Tensor, "layers hidden"],
    mlp_vectors: Float[Tensor, "layers hidden"],
    *,
    gamma: float = 1e-3,
) -> Float[Tensor, ""]:
    """How far the two branches are from pointing the same way in a layer and apart across layers.

    With M the cosines between the attention vector of one layer and the MLP vector of another:
    the mean over layers of (1 - M_ll)^2 plus gamma times the squares beside the diagonal.

    The value does not depend on the vectors' lengths, so its gradient grows as they get shorter.

    Source: M2IV, arXiv 2504.04633, the synergy loss; taking the correlation over layers is ours.
    """
    rows = functional.normalize(_wide(attention_vectors), dim=-1)
    columns = functional.normalize(_wide(mlp_vectors), dim=-1)
    cosines = rows @ columns.T
    same = cosines.diagonal()
    across = cosines.square().sum() - same.square().sum()
    return ((1 - same).square().sum() + gamma * across) / len(same)
