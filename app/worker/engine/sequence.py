"""One request inside the engine: what it wants, and how far it is.

A sequence belongs to the device thread between `Engine.add` and its return from `Engine.step`.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

from jaxtyping import Float
from torch import Tensor

from app.core.errors import VLibraryError
from app.rpc.generation import GenerateDelta, SamplingParams, TokenLogprob, TokenLogprobs
from app.worker.engine.collate import layout_of
from app.worker.engine.detokenizer import Decode, Detokenizer, whole_text
from app.worker.engine.grammar import Grammar
from app.worker.engine.sampling import Sampler

# Of a prompt that the answer goes on with: enough to tell how the next token reads.
NUM_KNOWN: Final = 8

Score = TypeVar("Score", bound=TokenLogprob)
Shift = Float[Tensor, "layers 2 hidden"]


Listener: TypeAlias = Callable[[GenerateDelta], object]


@dataclass(kw_only=True, eq=False)
class Sequence:
    """A prompt and the answer that grows behind it.

    Attributes:
        inputs: The backbone's keyword arguments for this prompt alone: a batch of one, no padding.
        keeps_first: Whether to keep the distribution of the first token.
        goes_on: Whether the answer goes on with the prompt's text, so that space before it counts.
        token_ids: The answer so far, without the token that ends the turn.
        scores: One a token of the text, when the sampling asks for them.
        text: The answer without control tokens and, unless it goes on, the space before it; set
            when it is finished.
        finish_reason: Why it ended, set when it is finished.
        error: What it failed with; text and finish reason are not set then.
        sites_hit: Fewest sites shifted in any pass; 0 while unsteered.
        first_log_probabilities: Natural logarithms over the vocabulary, float32 on the CPU.
        prefill_at: Monotonic seconds; 0 before the prefill. So are `first_token_at`,
            `last_token_at`, of the last token so far, and `ended_at`.
        layout: Equal for prompts whose inputs can be stacked into one batch.
    """

    id: str
    inputs: Mapping[str, Any]
    sampling: SamplingParams
    grammar: Grammar | None = None
    shift: Shift | None = None
    keeps_first: bool = False
    goes_on: bool = False
    listener: Listener | None = None

    token_ids: list[int] = field(default_factory=list)
    scores: list[TokenLogprobs] = field(default_factory=list)
    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None
    error: VLibraryError | None = None
    sites_hit: int = 0
    num_forwards: int = 0
    first_log_probabilities: Float[Tensor, " vocab"] | None = None
    prefill_at: float = 0.0
    first_token_at: float = 0.0
    last_token_at: float = 0.0
    ended_at: float = 0.0
    sampler: Sampler = field(init=False)
    num_prompt_tokens: int = field(init=False)
    layout: Hashable = field(init=False)
    _detokenizer: Detokenizer | None = field(init=False, default=None)
    _num_sent: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        ids = self.inputs["input_ids"]
        self.layout = layout_of(self.inputs)
        self.num_prompt_tokens = int(ids.shape[1])
        prompt_ids = ids[0].tolist() if self.sampling.repetition_penalty != 1 else ()
        self.sampler = Sampler(
            sampling=self.sampling,
            prompt_ids=prompt_ids,
            answer_ids=self.token_ids,
            grammar=self.grammar,
        )

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.finish_reason is not None or self.error is not None

    def note_forward(self, *, sites_hit: int, now: float) -> None:
        """Count a pass that gave a token, at this time and with this many sites shifted."""
        self.last_token_at = now
        if not self.num_forwards:
            self.first_token_at = now
        self.sites_hit = min(self.sites_hit, sites_hit) if self.num_forwards else sites_hit
        self.num_forwards += 1

    def append(
        self,
        token_id: int,
        *,
        ends: frozenset[int],
        decode: Decode,
        score: TokenLogprobs | None = None,
    ) -> None:
        """Take the next token, and finish when it or the text it completes ends the answer."""
        detokenizer = self._text_so_far(decode)
        if token_id in ends:
            self.finish_reason = "stop"
        else:
            self._take(token_id, detokenizer, score)
        if detokenizer is None:
            if self.finish_reason is not None:
                self.text = whole_text(self.token_ids, decode)
            return
        if self.finish_reason is not None:
            detokenizer.end()
            self.text = detokenizer.whole
        self._send_delta(detokenizer)
        if self.finish_reason is not None:
            self.scores = self._shared_scores(detokenizer, 0, detokenizer.num_covered)

    def _text_so_far(self, decode: Decode) -> Detokenizer | None:
        """None where nobody looks at the text before it is whole."""
        sampling = self.sampling
        is_scored = sampling.logprobs is not None
        is_watched = self.listener is not None or sampling.stop or is_scored or self.goes_on
        if is_watched and self._detokenizer is None:
            known = self.inputs["input_ids"][0, -NUM_KNOWN:].tolist() if self.goes_on else ()
            self._detokenizer = Detokenizer(decode, stop=sampling.stop, known=known)
        return self._detokenizer

    def _take(
        self, token_id: int, detokenizer: Detokenizer | None, score: TokenLogprobs | None
    ) -> None:
        if self.grammar is not None:
            self.grammar.accept(token_id)
        self.token_ids.append(token_id)
        if detokenizer is not None:
            detokenizer.add(token_id)
            if score is not None:
                top = [
                    _reading(one, detokenizer.read(one.token_id) or one.text) for one in score.top
                ]
                self.scores.append(score.model_copy(update={"top": tuple(top)}))
            if detokenizer.is_stopped:
                self.finish_reason = "stop"
                return
        if len(self.token_ids) >= self.sampling.max_tokens:
            self.finish_reason = "length"

    def _send_delta(self, detokenizer: Detokenizer) -> None:
        """Give the listener what can be shown now and was not before."""
        if self.listener is None:
            return
        text = detokenizer.shown(is_last=self.is_finished)
        begin = self._num_sent
        end = detokenizer.num_covered if self.is_finished else detokenizer.num_settled
        self._num_sent = max(begin, end)
        if text or end > begin:
            scores = self._shared_scores(detokenizer, begin, end)
            self.listener(
                GenerateDelta(
                    text=text,
                    token_ids=tuple(self.token_ids[begin:end]),
                    logprobs=tuple(scores) or None,
                )
            )

    def _shared_scores(self, detokenizer: Detokenizer, begin: int, end: int) -> list[TokenLogprobs]:
        """The scores of some tokens, each with its share of the text."""
        return [
            _reading(score, detokenizer.share(place))
            for place, score in enumerate(self.scores[begin:end], start=begin)
        ]


def _reading(score: Score, text: str) -> Score:
    return score.model_copy(update={"text": text})
