"""From answers of this api to chat completions in OpenAI's words; knows no route and no worker."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from app.api.schemas.openai.answers import (
    AnswerMessageBody,
    ChatCompletionBody,
    ChoiceBody,
    ContentLogprobBody,
    LogprobsBody,
    SteeringFacts,
)
from app.api.schemas.steering import SteerBody
from app.api.steer.openai.writing import DONE, CompletionWriter
from app.api.steer.streaming import ChoiceItem
from app.rpc.generation import GenerateDelta, TokenLogprobs


@dataclass(kw_only=True)
class Completion(CompletionWriter):
    """Writes the answers to one conversation, whole or in chunks."""

    begun: set[int] = field(default_factory=set)

    def whole(self, answers: Sequence[SteerBody]) -> ChatCompletionBody:
        """The answers in full."""
        self.ended = dict(enumerate(answers))
        facts = [SteeringFacts.of(answer, ignored=self.ignored) for answer in answers]
        choices = tuple(
            ChoiceBody(
                index=place,
                message=AnswerMessageBody(content=answer.text),
                finish_reason=answer.finish_reason,
                logprobs=_logprobs(answer.logprobs),
                vlibrary=facts[place] if len(answers) > 1 else None,
            )
            for place, answer in enumerate(answers)
        )
        return ChatCompletionBody(
            **self.head(answers[0].backbone.fingerprint),
            choices=choices,
            usage=self.usage(),
            vlibrary=facts[0],
        )

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; the caller gives all of them in order."""
        place, piece = item.place, item.piece
        if place not in self.begun:
            self.begun.add(place)
            yield self._event(item, _choice(place, role="assistant", content=""))
        if isinstance(piece, GenerateDelta):
            taken = _logprobs(piece.logprobs)
            yield self._event(
                item, {**_choice(place, content=piece.text), "logprobs": _plain(taken)}
            )
            return
        facts = SteeringFacts.of(piece, ignored=self.ignored)
        end = {**_choice(place), "finish_reason": piece.finish_reason}
        yield self._event(item, end, vlibrary=_plain(facts))
        if self.is_last(place, piece):
            if self.includes_usage:
                yield self._event(item, usage=_plain(self.usage()))
            yield DONE

    def _event(self, item: ChoiceItem, *choices: object, **others: object) -> bytes:
        head = {**self.head(item.backbone), "object": "chat.completion.chunk"}
        chunk = {**head, "choices": choices, **others}
        return format_sse_event(data_str=json.dumps(chunk, ensure_ascii=False))


def _choice(place: int, **delta: str) -> dict[str, object]:
    return {"index": place, "delta": delta, "finish_reason": None, "logprobs": None}


def _plain(body: BaseModel | None) -> object:
    return None if body is None else body.model_dump(mode="json")


def _logprobs(found: Sequence[TokenLogprobs] | None) -> LogprobsBody | None:
    if found is None:
        return None
    return LogprobsBody(content=tuple(map(ContentLogprobBody.of, found)))
