"""Bodies that the OpenAI-compatible routes send; `vlibrary` is what OpenAI has no word for.

Source: the API reference of OpenAI's chat completions, (legacy) completions, models and embeddings.
"""

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import Field

from app.api.schemas.bodies import ResponseBody
from app.api.schemas.steering import (
    AppliedBody,
    AutoRetrievalBody,
    BackboneNameBody,
    SteerBody,
)
from app.rpc.generation import BaselineAnswer, Receipt, Timings, TokenLogprob, TokenLogprobs

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def is_absent(value: object) -> bool:
    """Whether a field is left out of a body."""
    return value is None


class ModelBody(ResponseBody):
    """A backbone, or a backbone with a stored vector."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(ge=0)
    owned_by: Literal["vlibrary"] = "vlibrary"
    root: str = Field(description="The backbone, or the vector and its version.")
    parent: str | None = Field(description="The backbone that a vector is applied to.")
    max_model_len: int | None = Field(description="Tokens of a prompt and its answer together.")
    architecture: Mapping[str, tuple[str, ...]] = {
        "input_modalities": ("text", "image"),
        "output_modalities": ("text",),
    }


class ModelsBody(ResponseBody):
    """The backbones that are served, and their vectors but for retired ones."""

    object: Literal["list"] = "list"
    data: tuple[ModelBody, ...]


class CompletionUsageBody(ResponseBody):
    """Token counts of one answer."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)


class LogprobBody(ResponseBody):
    """A token that could have come."""

    token: str
    logprob: float = Field(le=0)
    bytes: tuple[int, ...] | None = Field(description="Null for a part of a character.")

    @classmethod
    def of(cls, found: TokenLogprob) -> Self:
        """In OpenAI's words."""
        # Its bytes are lost, and those of the mark that stands for them would be wrong.
        is_whole = REPLACEMENT not in found.text
        return cls(
            token=found.text,
            logprob=found.logprob,
            bytes=tuple(found.text.encode()) if is_whole else None,
        )


class ContentLogprobBody(ResponseBody):
    """The token that was taken, with its share of the text, and the likeliest ones in its place."""

    token: str
    logprob: float = Field(le=0)
    bytes: tuple[int, ...]
    top_logprobs: tuple[LogprobBody, ...]

    @classmethod
    def of(cls, found: TokenLogprobs) -> Self:
        """In OpenAI's words."""
        return cls(
            token=found.text,
            logprob=found.logprob,
            bytes=tuple(found.text.encode()),
            top_logprobs=tuple(LogprobBody.of(other) for other in found.top),
        )


class LogprobsBody(ResponseBody):
    """Log-probabilities of an answer's tokens."""

    content: tuple[ContentLogprobBody, ...]
    refusal: None = None


class SteeringFacts(ResponseBody):
    """What steered an answer, with the proof."""

    applied: tuple[AppliedBody, ...]
    receipt: Receipt
    retrieval: AutoRetrievalBody | None
    baseline: BaselineAnswer | None
    timings: Timings
    backbone: BackboneNameBody
    max_tokens: int = Field(ge=1, description="The most tokens that the answer could have.")
    notes: tuple[str, ...] = Field(description="What was not done as it was asked.")
    ignored: tuple[str, ...] = Field(
        default=(), description="Fields of the request that this server has no use for."
    )

    @classmethod
    def of(cls, answer: SteerBody, *, ignored: tuple[str, ...]) -> Self:
        """The facts of an answer."""
        return cls.model_validate(answer).model_copy(update={"ignored": ignored})


class AnswerMessageBody(ResponseBody):
    """What the backbone says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChoiceBody(ResponseBody):
    """One of the answers; of several, each says what steered it."""

    index: int = Field(ge=0)
    message: AnswerMessageBody
    finish_reason: Literal["stop", "length"]
    logprobs: LogprobsBody | None
    vlibrary: SteeringFacts | None = Field(default=None, exclude_if=is_absent)


class ChatCompletionBody(ResponseBody):
    """An answer in full."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(ge=0)
    model: str
    system_fingerprint: str
    choices: tuple[ChoiceBody, ...]
    usage: CompletionUsageBody
    vlibrary: SteeringFacts


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
    """The continuations in full."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int = Field(ge=0)
    model: str
    system_fingerprint: str
    choices: tuple[TextChoiceBody, ...]
    usage: CompletionUsageBody
    vlibrary: SteeringFacts


class EmbeddingBody(ResponseBody):
    """The retrieval key of one item: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(ge=0)
    embedding: tuple[float, ...] | str


class EmbeddingsUsageBody(ResponseBody):
    """The tokens of all texts; images have none here."""

    prompt_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)


class EmbeddingSpaceBody(ResponseBody):
    """Which embeddings these may be compared with."""

    space: str
    dimension: int = Field(ge=1)
    ignored: tuple[str, ...] = Field(
        default=(), description="Fields of the request that this server has no use for."
    )


class EmbeddingsBody(ResponseBody):
    """Retrieval keys, in the order of the items."""

    object: Literal["list"] = "list"
    data: tuple[EmbeddingBody, ...]
    model: str
    usage: EmbeddingsUsageBody
    vlibrary: EmbeddingSpaceBody
