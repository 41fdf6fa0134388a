"""What OpenAI's requests say alike, in the words of this api; knows no route."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Request

from app.api.dependencies import Services
from app.api.http.problems import name_fields
from app.api.schemas.openai.requests import ChatSteering, SamplingFields
from app.api.schemas.steering import NOT_RETRIEVED, STRENGTH_OF_NOTHING
from app.api.steer.openai.models import named_model
from app.api.steer.unknown_fields import settle_unknown_fields
from app.core.backbones import BackboneDescription
from app.core.errors import InvalidInputError
from app.core.identifiers import AUTO
from app.rpc.generation import MAX_TOKENS, SamplingParams, StructuredOutputs

DEFAULT_MAX_TOKENS: Final = 256
DEFAULT_TEMPERATURE: Final = 1.0
SEED_BITS: Final = 63


async def steering_of(
    body: SamplingFields,
    request: Request,
    *,
    services: Services,
    max_tokens: int | None,
    form: StructuredOutputs | None = None,
    names: Mapping[str, str],
) -> tuple[dict[str, Any], Sequence[BackboneDescription], tuple[str, ...]]:
    """What all of OpenAI's requests say alike, as fields of a request of this api.

    Beside them, the backbones of which one answers, and the places that are ignored. `form` is what
    the request says of it in OpenAI's words; `names` is what else errors call otherwise.

    More tokens than any server generates are made less instead of being refused: such numbers are
    written into clients once and for all.

    Raises:
        NotFoundError: There is no such model.
        InvalidInputError: A field is not supported, two vectors are named, a strength has none to
            act on, or a preference nothing to choose from.
        WorkerUnavailableError: No backbone is served at all.
    """
    extra, settings = body.vlibrary, services.settings
    ignored = settle_unknown_fields(body, unknown=settings.openai_unknown)
    backbones, vector = await named_model(services, body.model)
    own = {"vector": "vlibrary.vector" if vector is None else "model", "prefer": "vlibrary.prefer"}
    # Beside OpenAI's words for it, some clients say the form as vLLM does.
    given = {"structured_outputs": "structured_outputs"} if body.structured_outputs else {}
    name_fields(request, {**own, **names, **given})
    if vector is not None and extra.vector is not None:
        raise InvalidInputError(
            "A vector is named by the model and by vlibrary.vector; use one of them",
            details={"param": "vlibrary.vector"},
        )
    chosen = extra.vector if vector is None else vector
    if extra.strength != 1 and chosen is None:
        raise InvalidInputError(STRENGTH_OF_NOTHING, details={"param": "vlibrary.strength"})
    if chosen != AUTO and (extra.prefer is not None or not extra.only_ready):
        raise InvalidInputError(NOT_RETRIEVED, details={"param": "vlibrary.prefer"})
    fields = {
        **_own_settings(body),
        "vector": chosen,
        "prefer": extra.prefer,
        "only_ready": extra.only_ready,
        "strength": extra.strength,
        "demonstrations": extra.demonstrations,
        "baseline": extra.baseline,
        "max_tokens": min(max_tokens or DEFAULT_MAX_TOKENS, MAX_TOKENS),
        "fits_context": max_tokens is None or max_tokens > settings.max_new_tokens_limit,
        "temperature": DEFAULT_TEMPERATURE if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        # Without a seed OpenAI's answers differ from time to time.
        "seed": secrets.randbits(SEED_BITS) if body.seed is None else body.seed % 2**SEED_BITS,
        "stop": tuple(body.stop or ()),
        "structured_outputs": body.structured_outputs or form,
        "stream": bool(body.stream),
    }
    return fields, backbones, ignored


def _own_settings(body: SamplingFields) -> dict[str, Any]:
    """The settings that OpenAI has no word for: beside its fields, as others take them, or ours."""
    found = {}
    for name in SamplingParams.model_fields.keys() & ChatSteering.model_fields.keys():
        beside = getattr(body, name)
        found[name] = getattr(body.vlibrary, name) if beside is None else beside
    return found
