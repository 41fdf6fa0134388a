"""Who runs next: first come, first served, together with whoever fits."""

from collections import abc
from itertools import islice
from typing import Final

from app.worker.engine.sequence import Sequence

# So few that a pass costs more than what it wastes: on padding, or on scores between prompts.
CHEAP_TOKENS: Final = 512


class Scheduler:
    """A queue that hands out batches.

    The head of the queue always goes next, so nothing starves. Others join it in order of arrival
    when they have its layout and padding them would waste little.

    Args:
        max_batch_tokens: bound of rows times padded length of one prefill; a single
            longer prompt still goes, alone.
        is_varlen: whether a prompt may lie end to end with others, without padding.
        max_padding: how many times longer than another a prompt of one batch may be, unless the
            batch has no more than `CHEAP_TOKENS`; where all are varlen, padding does not count.
    """

    def __init__(
        self,
        *,
        max_batch_tokens: int,
        is_varlen: abc.Callable[[Sequence], bool],
        max_padding: float = 1.5,
    ) -> None:
        self._is_varlen = is_varlen
        self._queue: dict[str, Sequence] = {}
        self._max_batch_tokens = max_batch_tokens
        self._max_padding = max_padding

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the queue."""
        self._queue[sequence.id] = sequence

    def remove(self, sequence_id: str) -> bool:
        """Take a sequence out of the queue; false when it does not wait."""
        return self._queue.pop(sequence_id, None) is not None

    def next_batch(self, *, free_rows: int) -> list[Sequence]:
        """Take those out of the queue that are to be prefilled together next.

        Returns:
            In order of arrival; empty when nothing waits or no row is free.
        """
        if free_rows < 1 or not self._queue:
            return []
        head = next(iter(self._queue.values()))
        chosen = [head]
        for sequence in islice(self._queue.values(), 1, None):
            if len(chosen) == free_rows:
                break
            if sequence.layout == head.layout and self._fit([*chosen, sequence]):
                chosen.append(sequence)
        for sequence in chosen:
            del self._queue[sequence.id]
        return chosen

    def _fit(self, batch: abc.Sequence[Sequence]) -> bool:
        lengths = [sequence.num_prompt_tokens for sequence in batch]
        if sum(lengths) <= CHEAP_TOKENS and all(map(self._is_varlen, batch)):
            return True
        padded = len(lengths) * max(lengths)
        is_dense = max(lengths) <= min(lengths) * self._max_padding or padded <= CHEAP_TOKENS
        return is_dense and padded <= self._max_batch_tokens
