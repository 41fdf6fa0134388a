"""The next token of every row: greedy, or drawn with the row's own settings and seed.

Source: the order penalties, temperature, top-k, top-p is that of `transformers.generation`;
presence and frequency penalties are defined in OpenAI's reference of chat completions.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_TEMPERATURE: Final = 1e-4


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one sequence picks its tokens and when it ends.

    Attributes:
        max_new_tokens: At most this many tokens, the end-of-sequence token included.
        temperature: 0 picks the likeliest token.
        top_p: Keep the smallest set of tokens with at least this probability.
        top_k: Keep this many likeliest tokens; 0 keeps all.
        presence_penalty: Taken off the logit of every token that the answer has.
        frequency_penalty: The same, once for each time that the answer has it.
        repetition_penalty: Divides positive and multiplies negative logits of tokens that the
            prompt or the answer has; 1 changes nothing.
        seed: Equal seeds draw equal tokens, whatever else runs in the batch.
        stop: Texts that end the answer and are not part of it.
        num_top: Tell the probabilities of the tokens taken and of this many likeliest ones; none
            tells nothing.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    num_top: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the token is simply the likeliest one."""
        return self.temperature == 0 and not self.has_penalties

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens matter."""
        return (self.presence_penalty, self.frequency_penalty, self.repetition_penalty) != (0, 0, 1)

    def generator(self) -> torch.Generator | None:
        """The row's own source of randomness, none when it needs none."""
        return torch.Generator().manual_seed(self.seed) if self.temperature > 0 else None


@dataclass(kw_only=True, eq=False)
class Picker:
    """One row's settings with what its next pick depends on.

    Attributes:
        sampling: The settings.
        prompt_ids: Tokens of the prompt.
        answer_ids: Tokens picked so far.
        generator: Advanced by one draw a token.
    """

    sampling: Sampling
    prompt_ids: Rows[int] = ()
    answer_ids: Rows[int] = ()
    generator: torch.Generator | None = field(init=False)

    def __post_init__(self) -> None:
        """Gives the row its own source of randomness."""
        self.generator = self.sampling.generator()


def pick_tokens(logits: Float[Tensor, "rows vocab"], pickers: Rows[Picker]) -> list[int]:
    """One token id a row.

    Args:
        logits: The rows' next-token logits on the backbone's device.
        pickers: One a row.
    """
    greedy = logits.argmax(dim=-1).tolist()
    return [
        int(token) if picker.sampling.is_plain else _pick(logits[row], picker)
        for row, (token, picker) in enumerate(zip(greedy, pickers, strict=True))
    ]


def _pick(logits: Float[Tensor, " vocab"], picker: Picker) -> int:
    scores = logits.float().cpu()
    if picker.sampling.has_penalties:
        scores = _penalised(scores, picker)
    if picker.generator is None:
        return int(scores.argmax())
    return _draw(scores, picker.sampling, picker.generator)


def _penalised(scores: Float[Tensor, " vocab"], picker: Picker) -> Float[Tensor, " vocab"]:
    sampling, size = picker.sampling, len(scores)
    answer = torch.tensor(picker.answer_ids, dtype=torch.long)
    counts = torch.bincount(answer, minlength=size).to(scores.dtype)
    if sampling.repetition_penalty != 1:
        seen = counts > 0
        seen[torch.tensor(picker.prompt_ids, dtype=torch.long)] = True
        factor = torch.where(
            scores > 0, 1 / sampling.repetition_penalty, sampling.repetition_penalty
        )
        scores = torch.where(seen, scores * factor, scores)
    return (
        scores
        - sampling.presence_penalty * (counts > 0).to(scores.dtype)
        - sampling.frequency_penalty * counts
    )


def _draw(scores: Float[Tensor, " vocab"], sampling: Sampling, generator: torch.Generator) -> int:
    # Only differences count, so shifting is free; together with the least temperature it keeps
    # the division from overflowing to NaN.
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


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """How likely the backbone found a token, before any setting of the sampling.

    Attributes:
        token_id: The token.
        logprob: Natural logarithm of its probability.
        top: The likeliest tokens in its place with their logarithms, likeliest first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def score_token(logits: Float[Tensor, " vocab"], token_id: int, *, num_top: int) -> TokenScore:
    """The score of a token that was picked from these logits.

    Args:
        logits: Of one row.
        token_id: What was picked.
        num_top: How many of the likeliest tokens to tell as well.
    """
    logprobs = logits.float().log_softmax(dim=-1)
    best = logprobs.topk(min(num_top, len(logprobs)))
    return TokenScore(
        token_id=token_id,
        logprob=float(logprobs[token_id]),
        top=tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
    )
