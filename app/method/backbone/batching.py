"""Which sequences go through the backbone together.

Sequences of similar length waste little padding, and a budget of tokens keeps memory level where a
number of rows would not.
"""

from collections.abc import Sequence


def token_batches(lengths: Sequence[int], *, token_budget: int, max_rows: int) -> list[list[int]]:
    """Sequence numbers by batch, longest first.

    Args:
        lengths: Tokens of each sequence.
        token_budget: Most tokens of a batch with its padding; a longer sequence goes alone.
        max_rows: Most sequences of a batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        # The first of a batch is its longest, so it sets what every row costs.
        rows = (
            max(1, min(max_rows, token_budget // max(1, lengths[batches[-1][0]]))) if batches else 0
        )
        if rows > 0 and len(batches[-1]) < rows:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
