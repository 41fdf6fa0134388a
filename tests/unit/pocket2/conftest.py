from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tools.pocket2.anatomy import train_tokenizer
from tools.pocket2.building import Plan, Supplies, untrained_reader, untrained_sight
from tools.pocket2.gallery import Gallery, hang_gallery
from tools.pocket2.pictures.bank import Bank, join
from tools.pocket2.pictures.drawings import SIDE_PIXELS, Drawings
from tools.pocket2.pictures.sources import Source, Use, is_held_out
from tools.pocket2.reading.material import Material, gather
from tools.pocket2.reading.reader import Reader
from tools.pocket2.reading.words import LANGUAGES, Words, tokenizer_corpus
from tools.pocket2.sight import Sight

PLAN = Plan()
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


@pytest.fixture(scope="session")
def sight(supplies: Supplies) -> Sight:
    return untrained_sight(PLAN, supplies, num_classes=3).train(mode=False)


@pytest.fixture(scope="session")
def reader(supplies: Supplies) -> Reader:
    made = untrained_reader(PLAN, supplies)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(made.adapter.weight, std=0.1)
    return made.train(mode=False)


@pytest.fixture(scope="session")
def gallery(supplies: Supplies, sight: Sight) -> Gallery:
    rows = np.tile(supplies.bank.for_training, 3)
    return hang_gallery(sight, supplies.bank, rows, groups=120, seed=0)


@pytest.fixture(scope="session")
def material(supplies: Supplies, gallery: Gallery) -> Material:
    return gather(gallery, supplies.words, supplies.bank.words)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
