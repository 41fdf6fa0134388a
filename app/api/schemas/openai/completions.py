"""Bodies of `/v1/completions`: text that is continued as it stands.

Source: the API reference of OpenAI's (legacy) completions, and of vLLM's for what is left of it.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from app.api.schemas.bodies import ResponseBody
from app.api.schemas.fields import Prompt
from app.api.schemas.openai.answers import CompletionUsageBody, SteeringFacts, is_absent
from app.api.schemas.openai.requests import AnyTokenCount, SamplingFields
from app.rpc.generation import TopLogprobs


def _as_one(value: object) -> object:
    """A list of one prompt is that prompt."""
    found = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(found, str):
        raise ValueError("a request continues one text, which is not given as token ids")  # noqa: TRY004 - Pydantic's way
    return found


OnePrompt: TypeAlias = Annotated[
    list[Prompt], Field(min_length=1, max_length=1, description="One prompt a request.")
]


class CompletionRequest(SamplingFields):
    """A text to continue, in OpenAI's words."""

    prompt: Annotated[Prompt, BeforeValidator(_as_one, json_schema_input_type=Prompt | OnePrompt)]
    max_tokens: AnyTokenCount | None = None
    logprobs: TopLogprobs | None = None


class TextLogprobsBody(ResponseBody):
    """Log-probabilities of a continuation's tokens, one entry a token in every list."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[Mapping[str, float], ...]
    text_offset: tuple[int, ...] = Field(description="Where each begins in the text.")


class TextChoiceBody(ResponseBody):
    """One of the continuations, or what is new of it."""

    index: int = Field(ge=0)
    text: str
    logprobs: TextLogprobsBody | None = None
    finish_reason: Literal["stop", "length"] | None = None
    vlibrary: SteeringFacts | None = Field(default=None, exclude_if=is_absent)


class TextCompletionBody(ResponseBody):
    """The continuations in full, or a piece of them in a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int = Field(ge=0)
    model: str
    system_fingerprint: str
    choices: tuple[TextChoiceBody, ...]
    usage: CompletionUsageBody | None = Field(default=None, exclude_if=is_absent)
    vlibrary: SteeringFacts | None = Field(default=None, exclude_if=is_absent)
