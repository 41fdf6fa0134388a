"""The next token of every row: greedy, or drawn with the row's own settings and seed.

Source: the order penalties, temperature, top-k, top-p is that of `transformers.generation`;
presence and frequency penalties are defined in OpenAI's reference of chat completions.
"""

from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from app.core.errors import VLibraryError

LEAST_TEMPERATURE: Final = 1e-4


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
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
        top_logprobs: Tell the probabilities of the tokens taken and of this many likeliest ones;
            none tells nothing.
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
    top_logprobs: int | None = None

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
class Sampler:
    """One row's settings with what its next pick depends on.

    Attributes:
        sampling: The settings.
        prompt_ids: Tokens of the prompt.
        answer_ids: Tokens picked so far.
        generator: Advanced by one draw a token.
    """

    sampling: SamplingParams
    prompt_ids: Rows[int] = ()
    answer_ids: Rows[int] = ()
    generator: torch.Generator | None = field(init=False)

    def __post_init__(self) -> None:
        """Gives the row its own source of randomness."""
        self.generator = self.sampling.generator()


def sample(logits: Float[Tensor, "rows vocab"], samplers: Rows[Sampler]) -> list[int | Exception]:
    """One token id a row; a row's failure stands in its place, so that others get their tokens.

    Args:
        logits: The rows' next-token logits on the backbone's device.
        samplers: One a row.
    """
    best = logits.max(dim=-1)
    likeliest, is_finite = best.indices.tolist(), best.values.isfinite().tolist()
    return [
        _sampled(logits[row], sampler, likeliest=likeliest[row])
        if is_finite[row]
        else VLibraryError("The backbone computed no numbers for this request")
        for row, sampler in enumerate(samplers)
    ]


def _sampled(
    logits: Float[Tensor, " vocab"], sampler: Sampler, *, likeliest: int
) -> int | Exception:
    if sampler.sampling.is_plain:
        return likeliest
    try:
        scores = _penalised(logits, sampler) if sampler.sampling.has_penalties else logits
        if sampler.generator is None:
            return int(scores.argmax())
        return _draw(scores, sampler.sampling, sampler.generator)
    except Exception as error:  # noqa: BLE001 - it is this row's alone
        return error


def _penalised(scores: Float[Tensor, " vocab"], sampler: Sampler) -> Float[Tensor, " vocab"]:
    sampling = sampler.sampling
    counts = _counts(sampler.answer_ids, like=scores)
    if sampling.repetition_penalty != 1:
        seen = (counts > 0) | (_counts(sampler.prompt_ids, like=scores) > 0)
        factor = torch.where(
            scores > 0, 1 / sampling.repetition_penalty, sampling.repetition_penalty
        )
        scores = torch.where(seen, scores * factor, scores)
    return (
        scores
        - sampling.presence_penalty * (counts > 0).to(scores.dtype)
        - sampling.frequency_penalty * counts
    )


def _counts(token_ids: Rows[int], *, like: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """How often each token occurs; some image tokens are beyond what the head can say."""
    known = [token_id for token_id in token_ids if token_id < len(like)]
    ids = torch.tensor(known, dtype=torch.long, device=like.device)
    return torch.zeros_like(like).index_add_(0, ids, torch.ones_like(ids, dtype=like.dtype))


def _draw(
    scores: Float[Tensor, " vocab"], sampling: SamplingParams, generator: torch.Generator
) -> int:
    """A draw by the inverse of the cumulative distribution: one random number a token."""
    # Only differences count, so shifting is free; together with the least temperature it keeps
    # the division from overflowing to NaN.
    scores = (scores - scores.max()) / max(sampling.temperature, LEAST_TEMPERATURE)
    token_ids: Int[Tensor, " kept"] | None = None
    if sampling.top_k:
        scores, token_ids = scores.topk(min(sampling.top_k, len(scores)))
    elif sampling.top_p < 1:
        scores, token_ids = scores.sort(descending=True)
    probabilities = scores.double().softmax(dim=-1)
    if sampling.top_p < 1:
        # The likeliest token has no mass before it and is always kept, also where top_p is 0.
        mass_before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities * ((mass_before < sampling.top_p) | (mass_before == 0))
    mass = probabilities.cumsum(dim=-1)
    point = torch.rand(1, dtype=torch.double, generator=generator).to(mass.device) * mass[-1]
    # Tokens without mass are passed over: the first place beyond the point is taken.
    place = int(torch.searchsorted(mass, point, right=True).clamp_max(len(mass) - 1))
    return place if token_ids is None else int(token_ids[place])


@dataclass(frozen=True, kw_only=True)
class ScoredToken:
    """How likely the backbone found a token, before any setting of the sampling.

    Attributes:
        token_id: The token.
        text: How it reads alone.
        logprob: Natural logarithm of its probability.
    """

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """The token that was taken, and the likeliest ones in its place, likeliest first."""

    taken: ScoredToken
    top: tuple[ScoredToken, ...] = ()


def score_token(
    logits: Float[Tensor, " vocab"], token_id: int, *, top_logprobs: int, read: Callable[[int], str]
) -> TokenScore:
    """The score of a token that was picked from these logits.

    Args:
        logits: Of one row.
        token_id: What was picked.
        top_logprobs: How many of the likeliest tokens to tell as well.
        read: How a token reads alone.
    """
    logprobs = logits.float().log_softmax(dim=-1)
    best = logprobs.topk(min(top_logprobs, len(logprobs)))

    def scored(one: int, logprob: float) -> ScoredToken:
        return ScoredToken(token_id=one, text=read(one), logprob=logprob)

    return TokenScore(
        taken=scored(token_id, float(logprobs[token_id])),
        top=tuple(map(scored, best.indices.tolist(), best.values.tolist())),
    )
