"""Bodies of `/v1/completions`: text that is continued as it stands.

Source: the API reference of OpenAI's (legacy) completions, and of vLLM's for what is left of it.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from app.api.schemas.bodies import ResponseBody
from app.api.schemas.fields import Prompt
from app.api.schemas.openai.answers import CompletionUsageBody, SteeringFacts, is_absent
from app.api.schemas.openai.requests import MAX_CHOICES, AnyTokenCount, SamplingFields
from app.rpc.generation import TopLogprobs


def _as_list(value: object) -> object:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or any(isinstance(one, int | list) for one in found):
        raise ValueError("wanted a text or several, which are not given as token ids")
    return found


Prompts: TypeAlias = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_CHOICES)]


class CompletionRequest(SamplingFields):
    """Texts to continue, in OpenAI's words."""

    prompt: Annotated[Prompts, BeforeValidator(_as_list, json_schema_input_type=Prompt | Prompts)]
    max_tokens: AnyTokenCount | None = None
    logprobs: TopLogprobs | None = None

    @model_validator(mode="after")
    def _asks_for_few(self) -> Self:
        if len(self.prompt) * (self.n or 1) > MAX_CHOICES:
            raise ValueError(f"there are at most {MAX_CHOICES} continuations, n of each prompt")
        return self


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
