"""The next token of every row: greedy, or drawn with the row's own settings and seed.

Source: the order penalties, temperature, top-k, top-p, min-p is that of `transformers.generation`;
presence and frequency penalties are defined in OpenAI's reference of chat completions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from app.core.errors import VLibraryError
from app.rpc.generation import LEAST_LOGPROB, SamplingParams, TokenLogprob, TokenLogprobs
from app.worker.engine.grammar import Grammar

LEAST_TEMPERATURE: Final = 1e-4


@dataclass(kw_only=True, eq=False)
class Sampler:
    """One row's settings with what its next token depends on.

    Attributes:
        generator: Advanced by one draw a token.
    """

    sampling: SamplingParams
    prompt_ids: Sequence[int] = ()
    answer_ids: Sequence[int] = ()
    grammar: Grammar | None = None
    generator: torch.Generator | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # Equal seeds draw equal tokens, whatever else runs in the batch.
        if self.sampling.temperature > 0:
            self.generator = torch.Generator().manual_seed(self.sampling.seed)

    def rewind(self) -> None:
        """Forget a draw of which no token came: the next one is the same again."""
        if self.generator is not None:
            self.generator.manual_seed(self.sampling.seed)
            for _ in self.answer_ids:
                _uniform(self)

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens matter."""
        one = self.sampling
        return (one.presence_penalty, one.frequency_penalty, one.repetition_penalty) != (0, 0, 1)


def sample(
    logits: Float[Tensor, "rows vocab"], samplers: Sequence[Sampler]
) -> list[int | VLibraryError]:
    """One token id a row; a row's failure stands in its place, so that others get their tokens.

    All rows are computed together, each independently of the others, and read back once.
    """
    scores = _constrained(_penalised(logits, samplers), samplers)
    best = scores.max(dim=-1)
    token_ids, has_numbers = best.indices, best.values.isfinite()
    drawn = [place for place, one in enumerate(samplers) if one.generator is not None]
    if drawn:
        places = torch.tensor(drawn, device=logits.device)
        taken, has_mass = _drawn(scores[places], [samplers[place] for place in drawn])
        token_ids = token_ids.index_copy(0, places, taken)
        has_numbers = has_numbers.index_copy(0, places, has_numbers[places] & has_mass)
    found = torch.stack([token_ids, has_numbers.long()], dim=1).tolist()
    return [
        token_id if is_valid else _failure(one)
        for one, (token_id, is_valid) in zip(samplers, found, strict=True)
    ]


def _failure(sampler: Sampler) -> VLibraryError:
    if sampler.grammar is not None and sampler.grammar.problem:
        return VLibraryError(f"The answer could not be kept in its form: {sampler.grammar.problem}")
    return VLibraryError("The backbone computed no numbers for this request")


def _column(
    values: Sequence[float | int],
    like: Float[Tensor, "rows vocab"],
    *,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, "rows 1"]:
    return torch.tensor(values, dtype=dtype or like.dtype, device=like.device)[:, None]


def _penalised(
    logits: Float[Tensor, "rows vocab"], samplers: Sequence[Sampler]
) -> Float[Tensor, "rows vocab"]:
    """The logits less what earlier tokens cost; as they are where no row has a penalty."""
    penalised = [place for place, one in enumerate(samplers) if one.has_penalties]
    if not penalised:
        return logits
    places = torch.tensor(penalised, device=logits.device)
    rows = [samplers[place] for place in penalised]
    scores = logits[places]
    counts = _counts([one.answer_ids for one in rows], like=scores)
    seen = (counts > 0) | (_counts([one.prompt_ids for one in rows], like=scores) > 0)
    repetition = _column([one.sampling.repetition_penalty for one in rows], scores)
    scores = torch.where(
        seen, torch.where(scores > 0, scores / repetition, scores * repetition), scores
    )
    presence = _column([one.sampling.presence_penalty for one in rows], scores)
    frequency = _column([one.sampling.frequency_penalty for one in rows], scores)
    scores = scores - presence * (counts > 0).to(scores.dtype) - frequency * counts
    return logits.index_copy(0, places, scores)


def _constrained(
    scores: Float[Tensor, "rows vocab"], samplers: Sequence[Sampler]
) -> Float[Tensor, "rows vocab"]:
    """The scores with minus infinity where a row's grammar allows no token."""
    width = scores.shape[-1]
    grammars = [(place, one.grammar) for place, one in enumerate(samplers) if one.grammar]
    if not grammars:
        return scores
    places = torch.tensor([place for place, _ in grammars], device=scores.device)
    allowed = torch.stack([grammar.allowed(width) for _, grammar in grammars]).to(scores.device)
    kept = scores[places].masked_fill(~allowed, -torch.inf)
    return scores.index_copy(0, places, kept)


def _counts(
    token_ids: Sequence[Sequence[int]], *, like: Float[Tensor, "rows vocab"]
) -> Float[Tensor, "rows vocab"]:
    """How often each row has each token; some image tokens are beyond what the head can say."""
    width = like.shape[-1]
    places = [
        row * width + token_id
        for row, ids in enumerate(token_ids)
        for token_id in ids
        if token_id < width
    ]
    flat = torch.tensor(places, dtype=torch.long, device=like.device)
    ones = torch.ones_like(flat, dtype=like.dtype)
    return like.new_zeros(like.numel()).index_add_(0, flat, ones).view_as(like)


def _drawn(
    scores: Float[Tensor, "rows vocab"], samplers: Sequence[Sampler]
) -> tuple[Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """Draws by the inverse of the cumulative distribution, and whether a row's mass is a number."""
    settings = [one.sampling for one in samplers]
    # Only differences count, so shifting is free; together with the least temperature it keeps
    # the division from overflowing to NaN.
    scores = scores - scores.amax(dim=-1, keepdim=True)
    scores = scores / _column([max(s.temperature, LEAST_TEMPERATURE) for s in settings], scores)
    scores = _truncated(scores, settings)
    mass = scores.double().softmax(dim=-1).cumsum(dim=-1)
    points = _column([_uniform(one) for one in samplers], scores, dtype=torch.double) * mass[:, -1:]
    # Tokens without mass are passed over: the first place beyond the point is taken.
    found = torch.searchsorted(mass, points, right=True)[:, 0]
    last = (mass < mass[:, -1:]).sum(dim=-1)
    return torch.minimum(found, last), mass[:, -1].isfinite()


def _uniform(sampler: Sampler) -> float:
    """The row's own next random number, drawn on the CPU whatever the device."""
    return float(torch.rand((), dtype=torch.double, generator=sampler.generator))


def _truncated(
    scores: Float[Tensor, "rows vocab"], settings: Sequence[SamplingParams]
) -> Float[Tensor, "rows vocab"]:
    """The scores with all but the likeliest tokens at minus infinity; of equals, all stay or go."""
    width = scores.shape[-1]
    kept = [min(one.top_k, width) if one.top_k else width for one in settings]
    if min(kept) < width:
        most = max(k for k in kept if k < width)
        ends = _column([min(k, most) - 1 for k in kept], scores, dtype=torch.long)
        least = scores.topk(most, dim=-1).values.gather(1, ends)
        is_cut = _column([k < width for k in kept], scores, dtype=torch.bool)
        scores = scores.masked_fill(is_cut & (scores < least), -torch.inf)
    places = [place for place, one in enumerate(settings) if one.top_p < 1]
    if places:
        which = torch.tensor(places, device=scores.device)
        nucleus = _nucleus(scores[which], [settings[place].top_p for place in places])
        scores = scores.index_copy(0, which, nucleus)
    if any(one.min_p for one in settings):
        # The likeliest token's score is 0 here, so a share of its probability is a difference.
        shares = _column(
            [math.log(one.min_p) if one.min_p else -math.inf for one in settings], scores
        )
        scores = scores.masked_fill(scores < shares, -torch.inf)
    return scores


def _nucleus(
    scores: Float[Tensor, "rows vocab"], top_p: Sequence[float]
) -> Float[Tensor, "rows vocab"]:
    ordered = scores.sort(dim=-1, descending=True).values
    probabilities = ordered.double().softmax(dim=-1)
    # The likeliest token has no mass before it and is always kept, also where top_p is 0.
    mass_before = probabilities.cumsum(dim=-1) - probabilities
    num_kept = (mass_before < _column(top_p, scores, dtype=torch.double)).sum(-1, keepdim=True)
    return scores.masked_fill(scores < ordered.gather(1, num_kept.clamp_min(1) - 1), -torch.inf)


def score_tokens(
    logits: Float[Tensor, "rows vocab"],
    token_ids: Sequence[int],
    *,
    top_logprobs: Sequence[int],
    read: Callable[[int], str],
) -> list[TokenLogprobs]:
    """How likely the backbone found tokens, before any setting of the sampling.

    `top_logprobs` is how many of the likeliest are told as well; `read` is how a token reads alone.
    """
    logprobs = logits.float().log_softmax(dim=-1)
    taken = logprobs.gather(1, torch.tensor(token_ids, device=logits.device)[:, None])
    best = logprobs.topk(min(max(top_logprobs), logprobs.shape[-1]), dim=-1)
    values = torch.cat([taken, best.values], dim=1).clamp(LEAST_LOGPROB, 0.0).tolist()

    def scored(token_id: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(token_id=token_id, text=read(token_id), logprob=logprob)

    return [
        TokenLogprobs(
            token_id=token_id,
            text=read(token_id),
            logprob=row[0],
            top=tuple(map(scored, ids[:count], row[1 : count + 1])),
        )
        for token_id, row, ids, count in zip(
            token_ids, values, best.indices.tolist(), top_logprobs, strict=True
        )
    ]
