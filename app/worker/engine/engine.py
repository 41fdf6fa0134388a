"""Sequences in, finished sequences out: `add`, `step`, `abort`.

Rows that were prefilled together are decoded together; every step gives each running row one
token, and rows leave as soon as they end. Knows nothing of how requests arrive or leave.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Rows
from contextlib import contextmanager
from time import monotonic
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.core.errors import ConflictError, DeadlineExceededError
from app.core.logs import get_logger
from app.method.backbone import Backbone
from app.worker.engine.faults import is_fatal, library_error
from app.worker.engine.runner import Batch, Runner
from app.worker.engine.sampling import pick_tokens
from app.worker.engine.scheduler import Scheduler, Waiting
from app.worker.engine.sequence import Sequence

MAX_BATCH_TOKENS: Final = 8192

log = get_logger(__name__)


class Engine:
    """A backbone that answers many sequences at once, each with its own shift.

    Everything but the counters belongs to one thread.

    Args:
        backbone: Gets resident hooks, which do nothing while no row is steered.
        max_rows: Most sequences that run together.
        max_batch_tokens: Most padded tokens of one prefill.
    """

    def __init__(
        self, backbone: Backbone, *, max_rows: int, max_batch_tokens: int = MAX_BATCH_TOKENS
    ) -> None:
        self._backbone = backbone
        self._ends = frozenset(backbone.eos_token_ids)
        self._runner = Runner(backbone)
        self._scheduler = Scheduler(max_batch_tokens=max_batch_tokens)
        self._max_rows = max_rows
        self._sequences: dict[str, Sequence] = {}
        self._batches: list[Batch] = []

    @property
    def num_sites(self) -> int:
        """Sites that steering has to hit in every pass."""
        return self._runner.num_sites

    @property
    def num_waiting(self) -> int:
        """Sequences without a row."""
        return len(self._scheduler)

    @property
    def num_running(self) -> int:
        """Sequences with a row."""
        return sum(len(batch.rows) for batch in self._batches)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._sequences)

    def close(self) -> None:
        """Take the hooks off the backbone; the engine is of no use afterwards."""
        self._runner.close()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The backbone as it serves during the block, whatever mode a training has it in."""
        model = self._backbone.model
        was_training = model.training
        if was_training:
            model.train(mode=False)
        try:
            yield
        finally:
            if was_training:
                model.train()

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; a later step returns it finished.

        Raises:
            ConflictError: One of that id is in the engine.
        """
        if sequence.id in self._sequences:
            raise ConflictError("The engine has a sequence of this id already")
        sequence.added = monotonic()
        self._sequences[sequence.id] = sequence
        self._scheduler.add(
            Waiting(id=sequence.id, num_tokens=sequence.num_prompt_tokens, layout=sequence.layout)
        )

    def abort(self, sequence_id: str) -> bool:
        """Forget a sequence; its row is free at once. False when it is not in the engine."""
        if self._sequences.pop(sequence_id, None) is None:
            return False
        if not self._scheduler.remove(sequence_id):
            self._drop_gone_rows()
        return True

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Give every running row its next token, then prefill who fits.

        Returns:
            The sequences that ended in this step, whether well or with an error.

        Raises:
            torch.AcceleratorError: The device is lost; nothing in the engine can go on.
        """
        self._expire()
        finished = self._collect()
        for batch in self._batches:
            self._decode(batch)
        finished += self._collect()
        chosen = self._scheduler.next_batch(free_rows=self._max_rows - self.num_running)
        if chosen:
            self._prefill([self._sequences[sequence_id] for sequence_id in chosen])
        return finished + self._collect()

    def _expire(self) -> None:
        now = monotonic()
        for sequence in self._sequences.values():
            if now > sequence.deadline:
                sequence.error = DeadlineExceededError("The answer was not ready in time")

    def _decode(self, batch: Batch) -> None:
        try:
            logits = self._runner.decode(batch)
        except Exception as error:  # noqa: BLE001 - a failing batch must not end the loop
            self._fail(batch.rows, error)
        else:
            self._take(batch, logits)

    def _prefill(self, rows: Rows[Sequence]) -> None:
        now = monotonic()
        for row in rows:
            row.began = now
        try:
            batch, logits = self._runner.prefill(rows)
        except Exception as error:  # noqa: BLE001 - a failing row must not end the loop
            if len(rows) == 1 or is_fatal(error):
                self._fail(rows, error)
                return
        else:
            self._start(batch, logits)
            return
        # One of them is at fault and the others must not pay for it. This happens outside of the
        # handler, where the exception no longer keeps the failed pass's tensors alive.
        for row in rows:
            self._prefill([row])

    def _start(self, batch: Batch, logits: Float[Tensor, "rows vocab"]) -> None:
        for row, row_logits in zip(batch.rows, logits, strict=True):
            if row.keeps_first:
                row.first_log_probabilities = row_logits.log_softmax(dim=-1).cpu()
        self._batches.append(batch)
        self._take(batch, logits)
        now = monotonic()
        for row in batch.rows:
            row.first = now

    def _take(self, batch: Batch, logits: Float[Tensor, "rows vocab"]) -> None:
        rows = batch.rows
        token_ids = pick_tokens(
            logits, [row.sampling for row in rows], [row.generator for row in rows]
        )
        for row, token_id in zip(rows, token_ids, strict=True):
            row.append(token_id, ends=self._ends, decode=self._text)
        self._runner.take(batch, token_ids)

    def _text(self, token_ids: list[int]) -> str:
        text = self._backbone.tokenizer.decode(token_ids, skip_special_tokens=True)
        return str(text)

    def _fail(self, rows: Rows[Sequence], error: Exception) -> None:
        if is_fatal(error):
            raise error
        log.warning("sequence failed", action="engine.fail", rows=len(rows), exc_info=error)
        for row in rows:
            row.error = library_error(error)

    def _collect(self) -> list[Sequence]:
        """Take out what has ended, and free its rows."""
        finished = [row for row in self._sequences.values() if row.is_finished]
        now = monotonic()
        for sequence in finished:
            sequence.ended = now
            del self._sequences[sequence.id]
            self._scheduler.remove(sequence.id)
        if finished:
            self._drop_gone_rows()
        return finished

    def _drop_gone_rows(self) -> None:
        for batch in self._batches:
            kept = [row for row, one in enumerate(batch.rows) if one.id in self._sequences]
            if kept:
                self._runner.keep(batch, kept)
            else:
                batch.rows.clear()
        self._batches = [batch for batch in self._batches if batch.rows]
