"""From answers of this api to text completions in OpenAI's words; knows no route and no worker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fastapi.sse import format_sse_event

from app.api.schemas.openai.answers import SteeringFacts
from app.api.schemas.openai.completions import (
    TextChoiceBody,
    TextCompletionBody,
    TextLogprobsBody,
)
from app.api.schemas.steering import SteerBody
from app.api.steer.openai.writing import DONE, CompletionWriter
from app.api.steer.streaming import ChoiceItem
from app.rpc.generation import GenerateDelta, TokenLogprobs


@dataclass(kw_only=True)
class TextCompletion(CompletionWriter):
    """Writes the continuations of one prompt, whole or in chunks."""

    lengths: dict[int, int] = field(default_factory=dict)

    def whole(self, answers: Sequence[SteerBody]) -> TextCompletionBody:
        """The continuations in full."""
        self.ended = dict(enumerate(answers))
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
        return TextCompletionBody(
            **self.head(answers[0].backbone.fingerprint),
            choices=choices,
            usage=self.usage(),
            vlibrary=facts[0],
        )

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; the caller gives all of them in order."""
        place, piece = item.place, item.piece
        if isinstance(piece, GenerateDelta):
            offset = self.lengths.get(place, 0)
            self.lengths[place] = offset + len(piece.text)
            found = _logprobs(piece.logprobs, offset=offset)
            choice = TextChoiceBody(index=place, text=piece.text, logprobs=found)
            yield self._event(item, choice)
            return
        end = TextChoiceBody(index=place, text="", finish_reason=piece.finish_reason)
        yield self._event(item, end, vlibrary=SteeringFacts.of(piece, ignored=self.ignored))
        if self.is_last(place, piece):
            if self.includes_usage:
                yield self._event(item, usage=self.usage())
            yield DONE

    def _event(self, item: ChoiceItem, *choices: TextChoiceBody, **others: object) -> bytes:
        body = TextCompletionBody(**{**self.head(item.backbone), "choices": choices, **others})
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
