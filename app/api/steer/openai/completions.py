"""From answers of this api to chat and text completions in OpenAI's words; knows no route."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from app.api.schemas.openai.answers import (
    AnswerMessageBody,
    ChatCompletionBody,
    ChoiceBody,
    CompletionUsageBody,
    ContentLogprobBody,
    LogprobsBody,
    SteeringFacts,
    TextChoiceBody,
    TextCompletionBody,
    TextLogprobsBody,
)
from app.api.schemas.openai.requests import SamplingFields
from app.api.schemas.steering import SteerBody
from app.api.steer.streaming import ChoiceItem
from app.rpc.generation import GenerateDelta, TokenLogprob, TokenLogprobs

DONE: Final = format_sse_event(data_str="[DONE]")


@dataclass(frozen=True, kw_only=True)
class CompletionWriter:
    """What chat and text completions have in common.

    Attributes:
        id: Of all answers together.
        body: The request.
        ignored: Places of the request that were not looked at.
        created: When, in seconds of Unix time.
    """

    id: str
    body: SamplingFields
    ignored: tuple[str, ...]
    created: int = field(default_factory=lambda: int(time.time()))

    kind: ClassVar[str]
    """Of a chunk."""

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the tokens of all answers."""
        options = self.body.stream_options
        return options is not None and bool(options.include_usage)

    @property
    def count(self) -> int:
        """How many answers to a prompt there will be."""
        return self.body.n or 1

    def head(self, backbone: str) -> dict[str, Any]:
        """What every body and chunk begins with, by the fingerprint of the backbone."""
        return {
            "id": self.id,
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": f"fp_{backbone[:16]}",
        }

    def facts(self, answer: SteerBody) -> SteeringFacts:
        """What steered an answer."""
        return SteeringFacts.of(answer, ignored=self.ignored)

    def end(self, answers: Sequence[SteerBody]) -> Iterator[bytes]:
        """The events of a stream's end."""
        if self.tells_usage:
            yield self.event(answers[0].backbone.fingerprint, usage=self.usage(answers))
        yield DONE

    def error(self, content: str) -> bytes:
        """The event of an error; events of completions have no kinds."""
        return format_sse_event(data_str=content)

    def event(self, backbone: str, *choices: object, **others: object) -> bytes:
        """A chunk with these choices, by the fingerprint of the backbone; parts may be bodies."""
        head = {**self.head(backbone), "object": self.kind, "choices": choices}
        # Of a stream that ends with it, every chunk before has it as null.
        usage = {"usage": None} if self.tells_usage else {}
        return format_sse_event(data_str=json.dumps({**head, **usage, **others}, default=_plain))

    def usage(self, answers: Sequence[SteerBody]) -> CompletionUsageBody:
        """Token counts of all answers; a prompt counts once."""
        prompt_tokens = sum(answer.usage.prompt_tokens for answer in answers[:: self.count])
        completion_tokens = sum(answer.usage.completion_tokens for answer in answers)
        return CompletionUsageBody(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )


class ChatCompletion(CompletionWriter):
    """Writes the answers to one conversation, whole or in chunks."""

    kind = "chat.completion.chunk"

    def whole(self, answers: Sequence[SteerBody]) -> ChatCompletionBody:
        """The answers in full."""
        choices = tuple(
            ChoiceBody(
                index=index,
                message=AnswerMessageBody(content=answer.text),
                finish_reason=answer.finish_reason,
                logprobs=_chat_logprobs(answer.logprobs),
                vlibrary=self.facts(answer) if len(answers) > 1 else None,
            )
            for index, answer in enumerate(answers)
        )
        return ChatCompletionBody(
            **self.head(answers[0].backbone.fingerprint),
            choices=choices,
            usage=self.usage(answers),
            vlibrary=self.facts(answers[0]),
        )

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; the caller gives all of them in order."""
        index, chunk = item.index, item.chunk
        if item.is_first:
            yield self.event(item.backbone, _choice(index, role="assistant", content=""))
        if isinstance(chunk, GenerateDelta):
            choice = _choice(index, content=chunk.text)
            choice["logprobs"] = _chat_logprobs(chunk.logprobs)
            yield self.event(item.backbone, choice)
        else:
            choice = _choice(index)
            choice["finish_reason"] = chunk.finish_reason
            yield self.event(item.backbone, choice, vlibrary=self.facts(chunk))


def _choice(index: int, **delta: str) -> dict[str, object]:
    return {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}


def _plain(body: BaseModel) -> object:
    return body.model_dump(mode="json")


def _chat_logprobs(found: Sequence[TokenLogprobs] | None) -> LogprobsBody | None:
    if found is None:
        return None
    return LogprobsBody(content=tuple(map(ContentLogprobBody.of, found)))


class TextCompletion(CompletionWriter):
    """Writes the continuations of some prompts, whole or in chunks."""

    kind = "text_completion"

    def whole(self, answers: Sequence[SteerBody]) -> TextCompletionBody:
        """The continuations in full."""
        choices = tuple(
            TextChoiceBody(
                index=index,
                text=answer.text,
                finish_reason=answer.finish_reason,
                logprobs=_text_logprobs(answer.logprobs, offset=0),
                vlibrary=self.facts(answer) if len(answers) > 1 else None,
            )
            for index, answer in enumerate(answers)
        )
        return TextCompletionBody(
            **self.head(answers[0].backbone.fingerprint),
            choices=choices,
            usage=self.usage(answers),
            vlibrary=self.facts(answers[0]),
        )

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; the caller gives all of them in order."""
        index, chunk = item.index, item.chunk
        if isinstance(chunk, GenerateDelta):
            found = _text_logprobs(chunk.logprobs, offset=item.offset)
            choice = TextChoiceBody(index=index, text=chunk.text, logprobs=found)
            yield self.event(item.backbone, choice)
        else:
            choice = TextChoiceBody(index=index, text="", finish_reason=chunk.finish_reason)
            yield self.event(item.backbone, choice, vlibrary=self.facts(chunk))


def _text_logprobs(
    found: Sequence[TokenLogprobs] | None, *, offset: int
) -> TextLogprobsBody | None:
    if found is None:
        return None
    offsets = []
    for one in found:
        offsets.append(offset)
        offset += len(one.text)
    return TextLogprobsBody(
        tokens=tuple(one.text for one in found),
        token_logprobs=tuple(one.logprob for one in found),
        top_logprobs=tuple(_by_text(one.top) for one in found),
        text_offset=tuple(offsets),
    )


def _by_text(top: Sequence[TokenLogprob]) -> dict[str, float]:
    """Of tokens that read alike the likeliest, which is the first."""
    found: dict[str, float] = {}
    for one in top:
        found.setdefault(one.text, one.logprob)
    return found
