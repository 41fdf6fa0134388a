"""Which sequences go through the backbone together.

Sequences of similar length waste little padding, and a budget of tokens keeps memory level where a
number of rows would not.
"""

import sys
from collections.abc import Sequence
from typing import Final

from app.method.backbone.features import FeatureCache
from app.method.backbone.pictures import KEPT_BYTES, decoded_bytes
from app.method.backbone.prompts import PromptText

MAX_ROWS: Final = 64


def prompt_batches(
    prompts: Sequence[PromptText],
    lengths: Sequence[int],
    *,
    features: FeatureCache,
    token_budget: int,
    max_rows: int = MAX_ROWS,
) -> list[list[int]]:
    """Numbers of prompts by batch, as `token_batches` makes them.

    Of prompts that are read from pixels, a batch shows no more than is kept decoded, and all of its
    prompts show equally many: Mllama also looks at what fills up a row that has fewer.
    """
    if features.uses_cached_features(prompts):
        return token_batches(lengths, token_budget=token_budget, max_rows=max_rows)
    shown = {one.digest: one for prompt in prompts for one in prompt.images}
    taken = {digest: decoded_bytes(one.size) for digest, one in shown.items()}
    by_count: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        by_count.setdefault(len(prompt.images), []).append(place)
    batches: list[list[int]] = []
    for places in by_count.values():
        found = token_batches(
            [lengths[place] for place in places],
            token_budget=token_budget,
            max_rows=max_rows,
            sizes=[sum(taken[one.digest] for one in prompts[place].images) for place in places],
            most_bytes=KEPT_BYTES,
        )
        batches += [[places[index] for index in batch] for batch in found]
    return batches


def token_batches(
    lengths: Sequence[int],
    *,
    token_budget: int,
    max_rows: int,
    sizes: Sequence[int] | None = None,
    most_bytes: int = sys.maxsize,
) -> list[list[int]]:
    """Sequence numbers by batch, longest first.

    A batch has at most `token_budget` tokens with its padding, `max_rows` sequences, and
    `most_bytes` of what its sequences take by `sizes`; one that exceeds a bound goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    num_bytes = 0
    for index in order:
        size = 0 if sizes is None else sizes[index]
        # The first of a batch is its longest, so it sets what every row costs.
        rows = (
            max(1, min(max_rows, token_budget // max(1, lengths[batches[-1][0]]))) if batches else 0
        )
        if rows > 0 and len(batches[-1]) < rows and num_bytes + size <= most_bytes:
            batches[-1].append(index)
            num_bytes += size
        else:
            batches.append([index])
            num_bytes = size
    return batches
