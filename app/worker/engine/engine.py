"""Sequences in, finished sequences out: `add`, `step`, `abort`.

Every step gives each running row one token and prefills some who wait; rows join and leave between
any two steps.
"""

from collections import abc
from contextlib import nullcontext
from time import monotonic

import torch
from jaxtyping import Float
from torch import Tensor

from app.core.errors import ConflictError
from app.core.telemetry.logs import get_logger
from app.method.backbone.chat import as_written
from app.method.backbone.loading import Backbone
from app.rpc.generation import TokenLogprobs
from app.worker.engine.batching.prefill import ForwardOutput
from app.worker.engine.families import make_runner
from app.worker.engine.faults import forget_frames, is_fatal, library_error
from app.worker.engine.sampling import sample, score_tokens
from app.worker.engine.scheduler import next_batch
from app.worker.engine.sequence import Sequence
from app.worker.engine.weights import PackedWeights

log = get_logger(__name__)


class Engine:
    """A backbone that answers many sequences at once, each with its own shift.

    Everything but the counters belongs to one thread.

    Args:
        weights: Copies of the backbone's weights for its passes, which outlive the engine.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_rows: int,
        weights: PackedWeights | None = None,
    ) -> None:
        self._backbone = backbone
        self._using_weights = nullcontext if weights is None else weights.in_use
        self._ends = frozenset(backbone.eos_token_ids)
        self._runner = make_runner(backbone, max_rows=max_rows)
        self._max_rows = max_rows
        self._sequences: dict[str, Sequence] = {}
        # Those without a row, first come first.
        self._waiting: dict[str, Sequence] = {}
        self.num_steps = 0

    @property
    def num_waiting(self) -> int:
        """Sequences without a row."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences with a row."""
        return sum(map(len, self._runner.groups))

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._sequences)

    def close(self) -> None:
        """Take the hooks off the backbone; the engine is of no use afterwards."""
        self._runner.close()

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; a later step returns it finished.

        Raises:
            ConflictError: One of that id is in the engine.
        """
        if sequence.id in self._sequences:
            raise ConflictError("The engine has a sequence of this id already")
        self._sequences[sequence.id] = self._waiting[sequence.id] = sequence

    @torch.inference_mode()
    def abort(self, sequence_id: str) -> bool:
        """Forget a sequence; its row is free at once. False when it is not in the engine."""
        sequence = self._sequences.pop(sequence_id, None)
        if sequence is None:
            return False
        if self._waiting.pop(sequence_id, None) is None:
            self._drop([sequence])
        return True

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Give every running row its next token, then prefill who fits.

        Returns:
            The sequences that ended in this step, whether well or with an error.

        Raises:
            torch.AcceleratorError: The device is lost; nothing in the engine can go on.
        """
        self.num_steps += 1
        with self._using_weights():
            return self._step()

    def _step(self) -> list[Sequence]:
        finished = self._collect()
        for group in self._runner.groups:
            self._decode(group)
        finished += self._collect()
        chosen = next_batch(
            self._waiting.values(),
            free_rows=self._max_rows - self.num_running,
            is_varlen=self._runner.is_varlen,
        )
        if chosen:
            for sequence in chosen:
                del self._waiting[sequence.id]
            self._prefill(chosen)
        return finished + self._collect()

    def _decode(self, rows: abc.Sequence[Sequence]) -> None:
        if not self._pass(rows, self._runner.decode, is_repeatable=self._runner.is_repeatable):
            for row in rows:
                self._decode([row])

    def _prefill(self, rows: abc.Sequence[Sequence]) -> None:
        now = monotonic()
        for row in rows:
            row.prefill_at = now
        if not self._pass(rows, self._runner.prefill, is_repeatable=True):
            self._drop(rows)
            for row in rows:
                self._prefill([row])

    def _pass(
        self,
        rows: abc.Sequence[Sequence],
        forward: abc.Callable[[abc.Sequence[Sequence]], ForwardOutput],
        *,
        is_repeatable: bool,
    ) -> bool:
        """Make a pass for the rows; False when it failed and each row is to be tried alone.

        One of them is at fault and the others must not pay for it. They are tried by the caller,
        where the exception no longer keeps the failed pass's tensors alive.
        """
        try:
            output = forward(rows)
        except Exception as error:  # noqa: BLE001 - a failing row must not end the loop
            if len(rows) > 1 and not is_fatal(error) and is_repeatable:
                return False
            self._fail(rows, error)
        else:
            self._take(rows, output)
        return True

    def _take(self, rows: abc.Sequence[Sequence], output: ForwardOutput) -> None:
        """Give each row its next token; a row for which that fails, fails alone."""
        logits, sites_hit = output
        sampled, scores = self._sample(rows, logits)
        now = monotonic()
        for place, (row, found) in enumerate(zip(rows, sampled, strict=True)):
            row.note_forward(sites_hit=0 if row.shift is None else sites_hit, now=now)
            if isinstance(found, Exception):
                self._fail([row], found)
                continue
            try:
                if row.keeps_first and row.num_forwards == 1:
                    row.first_log_probabilities = logits[place].log_softmax(dim=-1).cpu()
                row.append(found, ends=self._ends, decode=self._text, score=scores.get(place))
            except Exception as error:  # noqa: BLE001 - likewise
                self._fail([row], error)
        try:
            self._runner.take(rows, [_id_of(one) for one in sampled])
        except Exception as error:  # noqa: BLE001 - likewise
            self._fail([row for row in rows if not row.is_finished], error)

    def _sample(
        self, rows: abc.Sequence[Sequence], logits: Float[Tensor, "rows vocab"]
    ) -> tuple[list[int | Exception], dict[int, TokenLogprobs]]:
        """The next token of each row, or why it has none; and scores of those that ask, by place.

        Where that fails for the rows together, each is tried alone.
        """
        try:
            found: list[int | Exception] = [*sample(logits, [row.sampler for row in rows])]
            return found, self._scores(rows, logits, [_id_of(one) for one in found])
        except Exception as error:
            if is_fatal(error):
                raise
            if len(rows) == 1:
                return [error], {}
        sampled, scores = [], {}
        for place, row in enumerate(rows):
            row.sampler.rewind()
            (one,), score = self._sample([row], logits[place : place + 1])
            sampled.append(one)
            if score:
                scores[place] = score[0]
        return sampled, scores

    def _scores(
        self,
        rows: abc.Sequence[Sequence],
        logits: Float[Tensor, "rows vocab"],
        token_ids: abc.Sequence[int],
    ) -> dict[int, TokenLogprobs]:
        """The scores of the tokens of those rows that ask for them, by place."""
        num_top = {
            place: row.sampling.logprobs
            for place, row in enumerate(rows)
            if row.sampling.logprobs is not None
        }
        if not num_top:
            return {}
        found = score_tokens(
            logits[list(num_top)],
            [token_ids[place] for place in num_top],
            top_logprobs=list(num_top.values()),
            read=lambda one: str(self._backbone.tokenizer.decode([one])),
        )
        return dict(zip(num_top, found, strict=True))

    def _text(self, token_ids: list[int]) -> str:
        text = self._backbone.tokenizer.decode(token_ids, skip_special_tokens=True)
        return as_written(str(text))

    def _fail(self, rows: abc.Sequence[Sequence], error: Exception) -> None:
        if is_fatal(error):
            raise error
        log.warning("sequence failed", action="engine.fail", rows=len(rows), exc_info=error)
        for row in rows:
            row.error = library_error(error)
        forget_frames(error)

    def _collect(self) -> list[Sequence]:
        """Take out what has ended, and free its rows."""
        finished = [row for row in self._sequences.values() if row.is_finished]
        now = monotonic()
        for sequence in finished:
            sequence.ended_at = now
            del self._sequences[sequence.id]
        if finished:
            self._drop(finished)
        return finished

    def _drop(self, rows: abc.Sequence[Sequence]) -> None:
        try:
            self._runner.drop(rows)
        except Exception as error:  # noqa: BLE001 - a failing row must not end the loop
            # What is left of the others' state cannot be trusted.
            others = [row for group in self._runner.groups for row in group if row not in rows]
            self._runner.clear()
            self._fail(others, error)


def _id_of(sampled: int | Exception) -> int:
    """The token, or any where there is none, so that the others of its batch get theirs."""
    return 0 if isinstance(sampled, Exception) else sampled
