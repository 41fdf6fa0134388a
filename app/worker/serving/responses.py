"""Finished sequences to answers with their receipt.

Pure functions; they know messages and sequences, no device and no event loop.
"""

from time import monotonic

import numpy as np

from app.core.errors import SteeringError
from app.rpc.generation import (
    AppliedVector,
    BaselineAnswer,
    GenerateResponse,
    Receipt,
    Timings,
    Usage,
)
from app.rpc.messages import GenerateRequest
from app.worker.engine.sequence import Sequence


def response_of(
    request: GenerateRequest,
    answered: Sequence,
    plain: Sequence | None,
    *,
    num_sites: int,
    began: float,
    dose: float | None,
    notes: tuple[str, ...] = (),
) -> GenerateResponse:
    """The answer to a request.

    `began` is the monotonic time in seconds at which the request came.

    Raises:
        SteeringError: Vectors were asked for and a pass did not get them in full.
    """
    expected = num_sites if request.vectors else 0
    if answered.sites_hit != expected:
        raise SteeringError(
            f"The vectors were not applied in full: wanted {expected} sites in every pass, "
            f"found {answered.sites_hit}",
            details={"sites_expected": expected, "sites_hit": answered.sites_hit},
        )
    return GenerateResponse(
        **dict(_said(answered)),
        receipt=Receipt(
            vectors=tuple(
                AppliedVector(sha256=use.sha256, strength=use.strength) for use in request.vectors
            ),
            sites_hit=answered.sites_hit,
            sites_expected=expected,
            num_forwards=answered.num_forwards,
            kl_first_token=None if plain is None else first_token_divergence(answered, plain),
            dose=None if dose is None else round(dose, 6),
        ),
        baseline=None if plain is None else _said(plain),
        logprobs=None if request.logprobs is None else tuple(answered.scores),
        timings=Timings(
            queue_ms=_milliseconds(began, answered.prefill_at),
            prefill_ms=_milliseconds(answered.prefill_at, answered.first_token_at),
            decode_ms=_milliseconds(answered.first_token_at, answered.ended_at),
            total_ms=_milliseconds(began, monotonic()),
        ),
        max_tokens=answered.sampling.max_tokens,
        notes=notes,
    )


def first_token_divergence(steered: Sequence, plain: Sequence) -> float | None:
    """KL divergence of the steered from the plain first-token distribution, in nats.

    None when either did not keep its distribution.
    """
    if steered.first_log_probabilities is None or plain.first_log_probabilities is None:
        return None
    # In numpy: this is not the device thread, and torch would give it helpers.
    wanted = steered.first_log_probabilities.numpy()
    found = plain.first_log_probabilities.numpy()
    # Infinity less infinity, of what is never said, is no number, which would be told as 0.
    can_be = np.isfinite(wanted)
    wanted, found = wanted[can_be], found[can_be]
    divergence = np.sum(np.exp(wanted) * (wanted - found))
    # Rounding may leave a tiny negative number where the distributions are equal.
    return max(0.0, float(divergence))


def _said(sequence: Sequence) -> BaselineAnswer:
    return BaselineAnswer(
        text=sequence.text,
        token_ids=tuple(sequence.token_ids),
        finish_reason=sequence.finish_reason or "length",
        usage=Usage(
            prompt_tokens=sequence.num_prompt_tokens, completion_tokens=len(sequence.token_ids)
        ),
    )


def _milliseconds(start: float, end: float) -> float:
    return round(max(0.0, end - start) * 1000, 3)
