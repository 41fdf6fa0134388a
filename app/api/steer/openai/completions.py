"""From answers of this api to text completions in OpenAI's words; knows no route and no worker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fastapi.sse import format_sse_event

from app.api.schemas.openai.answers import CompletionUsageBody, SteeringFacts
from app.api.schemas.openai.completions import (
    TextChoiceBody,
    TextCompletionBody,
    TextLogprobsBody,
)
from app.api.schemas.steering import SteerBody
from app.api.steer.openai.writing import DONE, CompletionWriter, usage_of
from app.api.steer.streaming import ChoiceItem
from app.rpc.generation import GenerateDelta, TokenLogprobs


@dataclass(kw_only=True)
class TextCompletion(CompletionWriter):
    """Writes the continuations of one prompt, whole or in chunks."""

    lengths: dict[int, int] = field(default_factory=dict)

    def whole(self, answers: Sequence[SteerBody]) -> TextCompletionBody:
        """The continuations in full."""
        facts = [SteeringFacts.of(answer, ignored=self.ignored) for answer in answers]
        choices = tuple(
            TextChoiceBody(
                index=place,
                text=answer.text,
                finish_reason=answer.finish_reason,
                logprobs=_logprobs(answer.logprobs, offset=0),
                vlibrary=facts[place] if len(answers) > 1 else None,
            )
            for place, answer in enumerate(answers)
        )
        return self._body(choices, usage=usage_of(answers), vlibrary=facts[0])

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; the caller gives all of them in order."""
        place, piece = item.place, item.piece
        if isinstance(piece, GenerateDelta):
            offset = self.lengths.get(place, 0)
            self.lengths[place] = offset + len(piece.text)
            found = _logprobs(piece.logprobs, offset=offset)
            yield _event(
                self._body((TextChoiceBody(index=place, text=piece.text, logprobs=found),))
            )
            return
        self.ended.append(piece)
        end = TextChoiceBody(index=place, text="", finish_reason=piece.finish_reason)
        yield _event(self._body((end,), vlibrary=SteeringFacts.of(piece, ignored=self.ignored)))
        if len(self.ended) < self.count:
            return
        if self.includes_usage:
            yield _event(self._body((), usage=usage_of(self.ended)))
        yield DONE

    def _body(
        self,
        choices: tuple[TextChoiceBody, ...],
        *,
        usage: CompletionUsageBody | None = None,
        vlibrary: SteeringFacts | None = None,
    ) -> TextCompletionBody:
        return TextCompletionBody(
            id=self.id,
            created=self.created,
            model=self.model,
            system_fingerprint=self.fingerprint,
            choices=choices,
            usage=usage,
            vlibrary=vlibrary,
        )


def _event(body: TextCompletionBody) -> bytes:
    return format_sse_event(data_str=body.model_dump_json())


def _logprobs(found: Sequence[TokenLogprobs] | None, *, offset: int) -> TextLogprobsBody | None:
    if found is None:
        return None
    offsets = []
    for one in found:
        offsets.append(offset)
        offset += len(one.text)
    return TextLogprobsBody(
        tokens=tuple(one.text for one in found),
        token_logprobs=tuple(one.logprob for one in found),
        top_logprobs=tuple({top.text: top.logprob for top in one.top} for one in found),
        text_offset=tuple(offsets),
    )
