"""A question by its words: which ones, and which follow which.

Two questions with the same words lie in one place and questions without a common word nearly at
right angles, whatever a backbone makes of them: a question that shares most of its words with
another is still another.
"""

import hashlib
import re
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from jaxtyping import Float64

WIDTH: Final = 256

_START, _END = "\x02", "\x03"
# Scripts without spaces between words are read sign by sign.
_SIGNS: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD: Final = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+")


@lru_cache(maxsize=16_384)
def _direction(term: str) -> Float64[np.ndarray, " width"]:
    """A direction of its own for each term, the same on every machine."""
    bits = np.frombuffer(hashlib.shake_256(term.encode()).digest(WIDTH // 8), dtype=np.uint8)
    return np.unpackbits(bits).astype(np.float64) * 2 - 1


def wording(question: str) -> Float64[np.ndarray, " width"]:
    """The sum of the directions of a question's words and of its pairs of neighbours.

    Case and punctuation do not count, unless there is nothing else. Zero for an empty text.
    """
    text = question.strip().casefold()
    words = _WORD.findall(text) or ([text] if text else [])
    bounded = [_START, *words, _END] if words else []
    pairs = [f"{first} {second}" for first, second in pairwise(bounded)]
    return sum((_direction(term) for term in (*words, *pairs)), np.zeros(WIDTH))
