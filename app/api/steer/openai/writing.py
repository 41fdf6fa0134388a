"""What chat completions and text completions in OpenAI's words have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from fastapi.sse import format_sse_event

from app.api.schemas.openai.answers import CompletionUsageBody
from app.api.schemas.steering import SteerBody

DONE: Final = format_sse_event(data_str="[DONE]")


@dataclass(kw_only=True)
class CompletionWriter:
    """What is known of a completion while it is written.

    Attributes:
        id: Of the completion.
        created: Seconds since the epoch.
        model: As the caller called it.
        fingerprint: Of the backbone that answers.
        includes_usage: Whether a stream ends with a chunk about tokens.
        ignored: Places of the request that were not looked at.
        count: How many answers there will be.
        ended: Those that are complete.
    """

    id: str
    created: int
    model: str
    fingerprint: str
    includes_usage: bool = False
    ignored: tuple[str, ...] = ()
    count: int = 1
    ended: list[SteerBody] = field(default_factory=list)
    # Its events have no kinds.
    error_event: ClassVar[None] = None


def usage_of(answers: Sequence[SteerBody]) -> CompletionUsageBody:
    """Token counts of answers to one prompt, which counts once."""
    prompt_tokens = answers[0].usage.prompt_tokens
    completion_tokens = sum(answer.usage.completion_tokens for answer in answers)
    return CompletionUsageBody(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )
