"""Between OpenAI's responses and this api: conversations in, output items and events out.

Nothing is stored: a conversation is sent whole with every request.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi.sse import format_sse_event

from app.api.schemas.messages import ChatMessage
from app.api.schemas.openai.answers import SteeringFacts
from app.api.schemas.openai.responses import (
    InputItem,
    OutputMessageBody,
    OutputTextBody,
    ResponseObjectBody,
    ResponsesRequest,
    ResponseUsageBody,
    Status,
)
from app.api.schemas.steering import SteerBody
from app.api.steer.streaming import ChoiceItem
from app.rpc.generation import GenerateDelta, SamplingParams

INCOMPLETE: Final = {"reason": "max_output_tokens"}


def messages_of(body: ResponsesRequest) -> tuple[ChatMessage, ...]:
    """The conversation as messages, the instructions first."""
    first = [_message("system", body.instructions)] if body.instructions else []
    return (*first, *(_message(item.role, _content(item)) for item in body.input))


def _message(role: str, content: object) -> ChatMessage:
    return ChatMessage.model_validate({"role": role, "content": content})


def _content(item: InputItem) -> list[dict[str, object]]:
    return [
        {"type": "image_url", "image_url": part.image_url}
        if part.type == "input_image"
        else {"type": "text", "text": part.text}
        for part in item.content
    ]


@dataclass(kw_only=True)
class ResponseWriter:
    """Writes one answer as OpenAI's responses do, whole or as events."""

    id: str
    body: ResponsesRequest
    sampling: SamplingParams
    ignored: tuple[str, ...]
    created: int = field(default_factory=lambda: int(time.time()))
    number: int = 0

    def whole(self, answers: Sequence[SteerBody]) -> ResponseObjectBody:
        """The answer in full; there is one."""
        (answer,) = answers
        return self._body("completed" if answer.finish_reason == "stop" else "incomplete", answer)

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; the caller gives all of them in order."""
        chunk = item.chunk
        if item.is_first:
            begun = self._body("in_progress").model_dump(mode="json")
            yield self._event("response.created", response=begun)
            yield self._event("response.in_progress", response=begun)
            yield self._event(
                "response.output_item.added",
                output_index=0,
                item=self._message("in_progress", parts=()).model_dump(mode="json"),
            )
            yield self._part("response.content_part.added", part=_text_part(""))
        if isinstance(chunk, GenerateDelta):
            yield self._part("response.output_text.delta", delta=chunk.text, logprobs=[])
            return
        yield self._part("response.output_text.done", text=chunk.text, logprobs=[])
        yield self._part("response.content_part.done", part=_text_part(chunk.text))
        body = self.whole([chunk])
        done = body.output[0].model_dump(mode="json")
        yield self._event("response.output_item.done", output_index=0, item=done)
        kind = "response.completed" if body.status == "completed" else "response.incomplete"
        yield self._event(kind, response=body.model_dump(mode="json"))

    def end(self, _answers: Sequence[SteerBody]) -> Iterable[bytes]:
        """Nothing: the answer's own events are the last."""
        return ()

    def error(self, content: str) -> bytes:
        """The event of an error: its parts as OpenAI has them, and whole as its clients read it."""
        error = json.loads(content)["error"]
        facts = {name: error[name] for name in ("code", "message", "param")}
        return self._event("error", **facts, error=error)

    def _part(self, kind: str, **facts: object) -> bytes:
        return self._event(kind, item_id=self._message_id, output_index=0, content_index=0, **facts)

    def _event(self, kind: str, **facts: object) -> bytes:
        data: dict[str, Any] = {"type": kind, "sequence_number": self.number, **facts}
        self.number += 1
        return format_sse_event(event=kind, data_str=json.dumps(data))

    @property
    def _message_id(self) -> str:
        return self.id.replace("resp_", "msg_", 1)

    def _message(self, status: Status, *, parts: tuple[OutputTextBody, ...]) -> OutputMessageBody:
        return OutputMessageBody(id=self._message_id, status=status, content=parts)

    def _body(self, status: Status, answer: SteerBody | None = None) -> ResponseObjectBody:
        output: tuple[OutputMessageBody, ...] = ()
        usage = facts = None
        if answer is not None:
            output = (self._message(status, parts=(OutputTextBody(text=answer.text),)),)
            usage = ResponseUsageBody(
                input_tokens=answer.usage.prompt_tokens,
                output_tokens=answer.usage.completion_tokens,
                total_tokens=answer.usage.prompt_tokens + answer.usage.completion_tokens,
            )
            facts = SteeringFacts.of(answer, ignored=self.ignored)
        return ResponseObjectBody(
            id=self.id,
            created_at=self.created,
            status=status,
            incomplete_details=INCOMPLETE if status == "incomplete" else None,
            instructions=self.body.instructions,
            max_output_tokens=self.body.max_output_tokens,
            model=self.body.model,
            output=output,
            temperature=self.sampling.temperature,
            text={
                "format": self.body.form.model_dump(by_alias=True, exclude_none=True, mode="json")
            },
            top_p=self.sampling.top_p,
            usage=usage,
            vlibrary=facts,
        )


def _text_part(text: str) -> dict[str, object]:
    return OutputTextBody(text=text).model_dump(mode="json")
