"""From answers of this api to chat completions in OpenAI's words; knows no route and no worker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fastapi.sse import format_sse_event

from app.api.schemas.openai.answers import (
    AnswerMessageBody,
    ChatCompletionBody,
    ChatCompletionChunkBody,
    ChoiceBody,
    CompletionUsageBody,
    ContentLogprobBody,
    DeltaChoiceBody,
    DeltaMessageBody,
    LogprobsBody,
    SteeringFacts,
)
from app.api.schemas.steering import SteerBody
from app.api.steer.openai.writing import DONE, CompletionWriter, usage_of
from app.api.steer.streaming import ChoiceItem
from app.rpc.generation import GenerateDelta, TokenLogprobs


@dataclass(kw_only=True)
class Completion(CompletionWriter):
    """Writes the answers to one conversation, whole or in chunks."""

    begun: set[int] = field(default_factory=set)

    def whole(self, answers: Sequence[SteerBody]) -> ChatCompletionBody:
        """The answers in full."""
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
            id=self.id,
            created=self.created,
            model=self.model,
            system_fingerprint=self.fingerprint,
            choices=choices,
            usage=usage_of(answers),
            vlibrary=facts[0],
        )

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; the caller gives all of them in order."""
        place, piece = item.place, item.piece
        if place not in self.begun:
            self.begun.add(place)
            role = DeltaMessageBody(role="assistant", content="")
            yield self._event(choices=(DeltaChoiceBody(index=place, delta=role),))
        if isinstance(piece, GenerateDelta):
            delta = DeltaMessageBody(content=piece.text)
            taken = _logprobs(piece.logprobs)
            choice = DeltaChoiceBody(index=place, delta=delta, logprobs=taken)
            yield self._event(choices=(choice,))
            return
        self.ended.append(piece)
        end = DeltaChoiceBody(
            index=place, delta=DeltaMessageBody(), finish_reason=piece.finish_reason
        )
        yield self._event(choices=(end,), vlibrary=SteeringFacts.of(piece, ignored=self.ignored))
        if len(self.ended) < self.count:
            return
        if self.includes_usage:
            yield self._event(choices=(), usage=usage_of(self.ended))
        yield DONE

    def _event(
        self,
        *,
        choices: tuple[DeltaChoiceBody, ...],
        usage: CompletionUsageBody | None = None,
        vlibrary: SteeringFacts | None = None,
    ) -> bytes:
        chunk = ChatCompletionChunkBody(
            id=self.id,
            created=self.created,
            model=self.model,
            system_fingerprint=self.fingerprint,
            choices=choices,
            usage=usage,
            vlibrary=vlibrary,
        )
        return format_sse_event(data_str=chunk.model_dump_json())


def _logprobs(found: Sequence[TokenLogprobs] | None) -> LogprobsBody | None:
    if found is None:
        return None
    return LogprobsBody(content=tuple(map(ContentLogprobBody.of, found)))
