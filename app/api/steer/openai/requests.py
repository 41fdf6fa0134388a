"""What OpenAI's requests say alike, in the words of this api; knows no route and no worker."""

import secrets
from typing import Any, Final

from app.api.schemas.openai.requests import ChatSteering, SamplingFields
from app.api.schemas.steering import NOT_RETRIEVED, STRENGTH_OF_NOTHING
from app.core.errors import InvalidInputError
from app.core.identifiers import AUTO
from app.rpc.generation import MAX_TOKENS, SamplingParams

DEFAULT_MAX_TOKENS: Final = 256
DEFAULT_TEMPERATURE: Final = 1.0
SEED_BITS: Final = 63


def sampling_fields(
    body: SamplingFields, *, vector: str | None, max_tokens: int | None, max_tokens_limit: int
) -> dict[str, Any]:
    """What all of OpenAI's requests say alike, as fields of a request of this api.

    More tokens than any server generates are made less instead of being refused: such numbers are
    written into clients once and for all.

    Raises:
        InvalidInputError: Two vectors are named, a strength has none to act on, or a preference
            nothing to choose from.
    """
    extra = body.vlibrary
    if vector is not None and extra.vector is not None:
        raise InvalidInputError(
            "A vector is named by the model and by vlibrary.vector; use one of them",
            details={"param": "vlibrary.vector"},
        )
    if extra.strength != 1 and vector is None and extra.vector is None:
        raise InvalidInputError(STRENGTH_OF_NOTHING, details={"param": "vlibrary.strength"})
    chosen = extra.vector if vector is None else vector
    if chosen != AUTO and (extra.prefer is not None or not extra.only_ready):
        raise InvalidInputError(NOT_RETRIEVED, details={"param": "vlibrary.prefer"})
    return {
        **_own_settings(body),
        "vector": chosen,
        "prefer": extra.prefer,
        "only_ready": extra.only_ready,
        "strength": extra.strength,
        "demonstrations": extra.demonstrations,
        "baseline": extra.baseline,
        "max_tokens": min(max_tokens or DEFAULT_MAX_TOKENS, MAX_TOKENS),
        "fits_context": max_tokens is None or max_tokens > max_tokens_limit,
        "temperature": DEFAULT_TEMPERATURE if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        # Without a seed OpenAI's answers differ from time to time.
        "seed": secrets.randbits(SEED_BITS) if body.seed is None else body.seed % 2**SEED_BITS,
        "stop": tuple(body.stop or ()),
        "structured_outputs": body.structured_outputs,
        "stream": bool(body.stream),
    }


def _own_settings(body: SamplingFields) -> dict[str, Any]:
    """The settings that OpenAI has no word for: beside its fields, as others take them, or ours."""
    found = {}
    for name in SamplingParams.model_fields.keys() & ChatSteering.model_fields.keys():
        beside = getattr(body, name)
        found[name] = getattr(body.vlibrary, name) if beside is None else beside
    return found
