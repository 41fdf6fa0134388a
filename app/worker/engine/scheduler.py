"""Who runs next: first come, first served, together with whoever fits."""

from collections import abc
from itertools import islice
from typing import Final

from app.worker.engine.sequence import Sequence

# So few that a pass costs more than what it wastes: on padding, or on scores between prompts.
CHEAP_TOKENS: Final = 512
# Of rows times padded length of one prefill; a single longer prompt still goes, alone.
MAX_BATCH_TOKENS: Final = 8192
# How many times longer than another a prompt of one batch may be, unless the batch is cheap.
MAX_PADDING: Final = 1.5


def next_batch(
    waiting: abc.Collection[Sequence],
    *,
    free_rows: int,
    is_varlen: abc.Callable[[Sequence], bool],
) -> list[Sequence]:
    """Those of the waiting, in order of arrival, that are to be prefilled together next.

    The first always goes, so nothing starves. Others join it when they have its layout and padding
    them would waste little; where a cheap batch `is_varlen`, it is not padded.

    Returns:
        Likewise in order of arrival; empty when nothing waits or no row is free.
    """
    if free_rows < 1 or not waiting:
        return []
    head = next(iter(waiting))
    chosen = [head]
    for sequence in islice(waiting, 1, None):
        if len(chosen) == free_rows:
            break
        if sequence.layout == head.layout and _fit([*chosen, sequence], is_varlen=is_varlen):
            chosen.append(sequence)
    return chosen


def _fit(batch: abc.Sequence[Sequence], *, is_varlen: abc.Callable[[Sequence], bool]) -> bool:
    lengths = [sequence.num_prompt_tokens for sequence in batch]
    if sum(lengths) <= CHEAP_TOKENS and all(map(is_varlen, batch)):
        return True
    padded = len(lengths) * max(lengths)
    is_dense = max(lengths) <= min(lengths) * MAX_PADDING or padded <= CHEAP_TOKENS
    return is_dense and padded <= MAX_BATCH_TOKENS
