"""What each step of the second stage reads, from the easiest episodes to the hardest.

Knows episodes; knows no model.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from tools.pocket2.reading.episodes import draw_episode
from tools.pocket2.reading.material import Difficulty, Item, Material

PROSE_SHARE: Final = 0.08
_PASSAGE_LETTERS: Final = 2_000
_LENGTHS: Final = (5, 9, 17, 33, 65)
_FIRST_LENGTHS: Final = (0.3, 0.5, 0.2, 0.0, 0.0)
_LAST_LENGTHS: Final = (0.15, 0.25, 0.25, 0.2, 0.15)
_TOKENS_PER_ITEM: Final = 12
_FIRST_WAYS: Final = 3
_LAST_WAYS: Final = 32
_FIRST_SAME: Final = 0.6
_LAST_SAME: Final = 0.05


def step_episodes(
    material: Material, rng: np.random.Generator, *, progress: float, num_tokens: int
) -> list[list[Item]]:
    """The episodes of one step, all of one length.

    Args:
        material: What they are drawn from.
        rng: Of the step.
        progress: From 0, the easiest, to 1.
        num_tokens: About how many tokens they hold together.
    """
    share = min(1.0, max(0.0, progress))
    length = int(rng.choice(_LENGTHS, p=_mixed(_FIRST_LENGTHS, _LAST_LENGTHS, share)))
    difficulty = Difficulty(
        max_ways=round(_FIRST_WAYS * (_LAST_WAYS / _FIRST_WAYS) ** share),
        same_picture=_mixed([_FIRST_SAME], [_LAST_SAME], share)[0],
    )
    count = max(1, num_tokens // (_TOKENS_PER_ITEM * length))
    return [draw_episode(material, difficulty, rng, length=length) for _ in range(count)]


def long_enough(texts: Sequence[str]) -> list[str]:
    """The texts that passages can be taken from."""
    return [text for text in texts if len(text) > 2 * _PASSAGE_LETTERS]


def draw_prose(texts: Sequence[str], rng: np.random.Generator, *, num_tokens: int) -> list[str]:
    """Passages of a few hundred tokens, each starting at a word."""
    passages = []
    for index in rng.integers(len(texts), size=max(1, num_tokens // 500)).tolist():
        start = int(rng.integers(len(texts[index]) - _PASSAGE_LETTERS))
        passages.append(texts[index][start : start + _PASSAGE_LETTERS].partition(" ")[2])
    return passages


def _mixed(first: Sequence[float], last: Sequence[float], share: float) -> list[float]:
    return [(1 - share) * low + share * high for low, high in zip(first, last, strict=True)]
