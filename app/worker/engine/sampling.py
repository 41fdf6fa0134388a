"""The next token of every row: greedy, or drawn with the row's own settings and seed.

Source: the order temperature, top-k, top-p is that of `transformers.generation`.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_TEMPERATURE: Final = 1e-4


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one sequence picks its tokens and when it ends.

    Attributes:
        max_new_tokens: at most this many tokens, the end-of-sequence token included.
        temperature: 0 picks the likeliest token.
        top_p: keep the smallest set of tokens with at least this probability.
        top_k: keep this many likeliest tokens; 0 keeps all.
        seed: equal seeds draw equal tokens, whatever else runs in the batch.
        stop: texts that end the answer and are not part of it.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def generator(self) -> torch.Generator | None:
        """Return the row's own source of randomness, none when it needs none."""
        return torch.Generator().manual_seed(self.seed) if self.temperature > 0 else None


def pick_tokens(
    logits: Float[Tensor, "rows vocab"],
    samplings: Rows[Sampling],
    generators: Rows[torch.Generator | None],
) -> list[int]:
    """Return one token id a row.

    Args:
        logits: the rows' next-token logits on the backbone's device.
        samplings: each row's settings.
        generators: each row's generator, advanced by one draw; none for greedy rows.
    """
    greedy = logits.argmax(dim=-1).tolist()
    return [
        int(token) if generator is None else _draw(logits[row], samplings[row], generator)
        for row, (token, generator) in enumerate(zip(greedy, generators, strict=True))
    ]


def _draw(logits: Float[Tensor, " vocab"], sampling: Sampling, generator: torch.Generator) -> int:
    # Only differences count, so shifting is free; together with the least temperature it keeps
    # the division from overflowing to NaN.
    scores = logits.float().cpu()
    scores = (scores - scores.max()) / max(sampling.temperature, LEAST_TEMPERATURE)
    if sampling.top_k:
        lowest_kept = scores.topk(min(sampling.top_k, len(scores))).values[-1]
        scores = scores.masked_fill(scores < lowest_kept, -torch.inf)
    if sampling.top_p < 1.0:
        scores = _keep_nucleus(scores, sampling.top_p)
    probabilities = scores.softmax(dim=-1)
    return int(torch.multinomial(probabilities, num_samples=1, generator=generator))


def _keep_nucleus(scores: Float[Tensor, " vocab"], top_p: float) -> Float[Tensor, " vocab"]:
    ordered, order = scores.sort(descending=True)
    mass_before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    # The likeliest token has no mass before it, so at least one token is always kept.
    dropped = torch.zeros_like(mass_before, dtype=torch.bool)
    dropped[order] = mass_before >= top_p
    return scores.masked_fill(dropped, -torch.inf)
