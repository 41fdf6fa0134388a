"""Who runs next: first come, first served, together with whoever fits."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from app.core.errors import ConflictError

# So few that a pass costs more than what it wastes: on padding, or on scores between prompts.
CHEAP_TOKENS: Final = 512


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One sequence in the queue, by what decides with whom it may share a prefill.

    Attributes:
        id: the sequence's id.
        num_tokens: prompt length.
        layout: prompts may be stacked into one batch exactly when their layouts are equal.
        is_varlen: whether it may also lie end to end with others, without padding.
    """

    id: str
    num_tokens: int
    layout: Hashable
    is_varlen: bool = False


class Scheduler:
    """A queue that hands out batches.

    The head of the queue always goes next, so nothing starves. Others join it in order of arrival
    when they have its layout and padding them would waste little.

    Args:
        max_batch_tokens: bound of rows times padded length of one prefill; a single
            longer prompt still goes, alone.
        max_padding: how many times longer than another a prompt of one batch may be, unless the
            batch has no more than `CHEAP_TOKENS`; where all are packable, padding does not count.
    """

    def __init__(self, *, max_batch_tokens: int, max_padding: float = 1.5) -> None:
        self._queue: dict[str, Waiting] = {}
        self._max_batch_tokens = max_batch_tokens
        self._max_padding = max_padding

    def __len__(self) -> int:
        """Return how many sequences wait."""
        return len(self._queue)

    def __contains__(self, sequence_id: str) -> bool:
        """Return whether this sequence waits."""
        return sequence_id in self._queue

    def add(self, waiting: Waiting) -> None:
        """Put a sequence at the end of the queue.

        Raises:
            ConflictError: a sequence of that id waits already.
        """
        if waiting.id in self._queue:
            raise ConflictError("a sequence is added once", details={"id": waiting.id})
        self._queue[waiting.id] = waiting

    def remove(self, sequence_id: str) -> bool:
        """Take a sequence out of the queue; false when it does not wait."""
        return self._queue.pop(sequence_id, None) is not None

    def next_batch(self, *, free_rows: int) -> tuple[str, ...]:
        """Take the next sequences to prefill together out of the queue.

        Args:
            free_rows: how many more rows may run.

        Returns:
            Ids in order of arrival; empty when nothing waits or no row is free.
        """
        if free_rows < 1 or not self._queue:
            return ()
        head = next(iter(self._queue.values()))
        chosen = [head]
        for waiting in islice(self._queue.values(), 1, None):
            if len(chosen) == free_rows:
                break
            if waiting.layout == head.layout and self._fit([*chosen, waiting]):
                chosen.append(waiting)
        for waiting in chosen:
            del self._queue[waiting.id]
        return tuple(waiting.id for waiting in chosen)

    def _fit(self, batch: Sequence[Waiting]) -> bool:
        lengths = [waiting.num_tokens for waiting in batch]
        if all(waiting.is_varlen for waiting in batch) and sum(lengths) <= CHEAP_TOKENS:
            return True
        padded = len(lengths) * max(lengths)
        is_dense = max(lengths) <= min(lengths) * self._max_padding or padded <= CHEAP_TOKENS
        return is_dense and padded <= self._max_batch_tokens
