"""What chat completions and text completions in OpenAI's words have in common."""

import time
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from fastapi.sse import format_sse_event

from app.api.schemas.openai.answers import CompletionUsageBody
from app.api.schemas.openai.requests import SamplingFields
from app.api.schemas.steering import SteerBody

DONE: Final = format_sse_event(data_str="[DONE]")


@dataclass(kw_only=True)
class CompletionWriter:
    """What is known of a completion while it is written.

    Attributes:
        id: Of all answers together.
        model: The model as it was asked for.
        created: When, in seconds of Unix time.
        includes_usage: Whether a stream ends with a chunk about tokens.
        ignored: Places of the request that were not looked at.
        count: How many answers to a prompt there will be.
        num_prompts: How many prompts there are.
        ended: Answers that are complete, by their place.
    """

    id: str
    model: str
    created: int
    includes_usage: bool
    ignored: tuple[str, ...]
    count: int
    num_prompts: int = 1
    ended: dict[int, SteerBody] = field(default_factory=dict)
    # Its events have no kinds.
    error_event: ClassVar[None] = None

    @classmethod
    def of(
        cls,
        body: SamplingFields,
        *,
        id: str,  # noqa: A002 - OpenAI's word
        ignored: tuple[str, ...],
    ) -> Self:
        """The writer of what a request asks."""
        options = body.stream_options
        return cls(
            id=id,
            model=body.model,
            created=int(time.time()),
            includes_usage=bool(options and options.include_usage),
            ignored=ignored,
            count=body.n or 1,
        )

    def head(self, backbone: str) -> dict[str, Any]:
        """What every body and chunk begins with, by the fingerprint of the backbone."""
        return {
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"fp_{backbone[:16]}",
        }

    def is_last(self, place: int, answer: SteerBody) -> bool:
        """Whether no other answer comes after this complete one."""
        self.ended[place] = answer
        return len(self.ended) == self.count * self.num_prompts

    def usage(self) -> CompletionUsageBody:
        """Token counts of the complete answers; a prompt counts once."""
        answers = [self.ended[place].usage for place in sorted(self.ended)]
        prompt_tokens = sum(usage.prompt_tokens for usage in answers[:: self.count])
        completion_tokens = sum(usage.completion_tokens for usage in answers)
        return CompletionUsageBody(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )
