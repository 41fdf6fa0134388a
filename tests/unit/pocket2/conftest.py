from collections.abc import Sequence

import numpy as np
import pytest

from tools.pocket2.anatomy import train_tokenizer
from tools.pocket2.building import Supplies
from tools.pocket2.pictures.bank import Bank, join
from tools.pocket2.pictures.drawings import SIDE_PIXELS, Drawings
from tools.pocket2.pictures.sources import Source, Use, is_held_out
from tools.pocket2.reading.words import LANGUAGES, Words, tokenizer_corpus

_LETTERS = "abcdefghijklmnop"
NAMES = [f"{first}{second}ing" for first in _LETTERS for second in "aeiou"]
TAUGHT = [name for name in NAMES if not is_held_out(name)]


def drawings(
    vendor: str, names: Sequence[str], *, is_colored: bool, use: Use = "training"
) -> Drawings:
    """A blot of its own for each name, the same for every vendor but for its shade."""
    pixels = np.zeros((len(names), SIDE_PIXELS, SIDE_PIXELS, 4), np.uint8)
    for index, name in enumerate(names):
        blot = np.random.default_rng(list(name.encode())).random((4, 4)) < 0.5
        blot[1:3, 1:3] = True
        pixels[index, ..., 3] = np.kron(blot, np.full((16, 16), 255, np.uint8))
        pixels[index, ..., :3] = 40 * (index % 5)
    source = Source(
        package=f"@made/{vendor}", version="1", licence="MIT", is_colored=is_colored, use=use
    )
    return Drawings(
        source=source, names=tuple(names), pixels=pixels if is_colored else pixels[..., 3]
    )


@pytest.fixture(scope="session")
def bank() -> Bank:
    return join(
        [
            drawings("first", NAMES, is_colored=True),
            drawings("second", [f"{name}-outline" for name in NAMES[::2]], is_colored=False),
            drawings("unseen", NAMES, is_colored=True, use="evaluation"),
        ]
    )


@pytest.fixture(scope="session")
def words() -> Words:
    ranked = ("river", "cloud", "stone", "lamp", "piano", "tiger", "apple", "window", "garden")
    return Words(
        ranked=dict.fromkeys(LANGUAGES, ranked),
        prose=tuple(" ".join(np.random.default_rng(n).permutation(ranked * 99)) for n in range(3)),
    )


@pytest.fixture(scope="session")
def supplies(bank: Bank, words: Words) -> Supplies:
    return Supplies(bank, words, train_tokenizer(tokenizer_corpus(words, NAMES)))
