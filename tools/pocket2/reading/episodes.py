"""Episodes: items that share what only the earlier items can tell, labels drawn anew for each.

Turns pictures and words into items; knows neither tokens nor a model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from tools.pocket2.chance import happens
from tools.pocket2.reading.asking import asking, checking
from tools.pocket2.reading.material import (
    ATTRIBUTE_WORDS,
    NAMING,
    VALUE_WORDS,
    Difficulty,
    Item,
    Material,
    empty_question,
    valued,
)

_FEW: Final = 4


def draw_episode(
    material: Material, difficulty: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """One episode of this many items, of a kind drawn by the difficulty's shares."""
    makers: Mapping[str, Callable[..., list[Item]]] = {
        "bind": _binding,
        "rule": _ruling,
        "value": _valuing,
        "name": _naming,
        "frame names": _framing_names,
        "frame values": _framing_values,
        "recall": _recalling,
        "ask": asking,
        "check": checking,
    }
    kind = str(rng.choice(list(difficulty.shares), p=list(difficulty.shares.values())))
    return makers[kind](material, difficulty, rng, length=length)


def bind(
    material: Material,
    rng: np.random.Generator,
    *,
    ways: int,
    length: int,
    shows_same: bool = False,
) -> list[Item]:
    """Classes under labels that mean nothing; the first item of a class is not taught.

    Args:
        material: What the episode is drawn from.
        rng: Of the draw.
        ways: Classes.
        length: Items.
        shows_same: Whether a class comes back as the very same picture.
    """
    chosen = rng.choice(material.numbers, size=ways, replace=False).tolist()
    labels = material.words.labels(ways, rng)
    asked = empty_question(material, rng)
    # Bursts: some classes come much oftener than others.
    weights = rng.dirichlet(np.full(ways, float(rng.uniform(0.7, 4.0))))
    first = [int(rng.choice(material.classes[number])) for number in chosen]
    items, seen = [], set[int]()
    for way in rng.choice(ways, size=length, p=weights).tolist():
        picture = first[way] if shows_same else int(rng.choice(material.classes[chosen[way]]))
        items.append(Item(picture, asked, labels[way], is_taught=way in seen))
        seen.add(way)
    return items


def _binding(
    material: Material, difficulty: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    most = max(2, min(difficulty.max_ways, length // 2))
    ways = int(np.exp(rng.uniform(np.log(2), np.log(most + 0.99))))
    shows_same = happens(rng, difficulty.same_picture)
    return bind(material, rng, ways=ways, length=length, shows_same=shows_same)


def _valuing(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """One attribute of scenes, asked for by its name and told in plain words."""
    name = str(rng.choice(list(VALUE_WORDS)))
    asked = str(rng.choice(ATTRIBUTE_WORDS[name]))
    return [
        Item(picture, asked, VALUE_WORDS[name][value])
        for picture, value in valued(material, rng, name=name, length=length)
    ]


def _ruling(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """One attribute of scenes that no question names, in plain words or under labels."""
    name = str(rng.choice(list(VALUE_WORDS)))
    says_words = happens(rng, 0.4)
    labels = material.words.labels(len(VALUE_WORDS[name]), rng)
    texts = VALUE_WORDS[name] if says_words else labels
    asked = empty_question(material, rng)
    most = len(VALUE_WORDS[name]) if happens(rng, 0.5) else _FEW
    items, seen = [], set[int]()
    for picture, value in valued(material, rng, name=name, length=length, most=most):
        # One plain word tells which attribute is meant, and so all others.
        is_known = bool(seen) if says_words else value in seen
        items.append(Item(picture, asked, texts[value], is_taught=is_known))
        seen.add(value)
    return items


def _naming(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """Things by their own names."""
    asked = str(rng.choice(NAMING))
    return [Item(picture, asked, name) for picture, name in _named(material, rng, length)]


def _framing_names(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    return frame(material, _named(material, rng, length), rng, question=str(rng.choice(NAMING)))


def _framing_values(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    name = str(rng.choice(list(VALUE_WORDS)))
    pairs = [
        (picture, VALUE_WORDS[name][value])
        for picture, value in valued(material, rng, name=name, length=length)
    ]
    return frame(material, pairs, rng, question=str(rng.choice(ATTRIBUTE_WORDS[name])))


def frame(
    material: Material,
    pairs: Sequence[tuple[int, str]],
    rng: np.random.Generator,
    *,
    question: str,
) -> list[Item]:
    """Pictures with their answers inside words drawn once, or in capitals.

    Only the first item cannot know how answers are said.
    """
    before = material.words.phrase(int(rng.integers(0, 3)), rng)
    after = material.words.phrase(int(rng.integers(0 if before else 1, 3)), rng)
    is_upper = happens(rng, 0.25)
    items = []
    for index, (picture, answer) in enumerate(pairs):
        said = [before, answer.upper() if is_upper else answer, after]
        items.append(Item(picture, question, " ".join(filter(None, said)), is_taught=index > 0))
    return items


def _recalling(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """Words bound to labels without a picture: looking up what was said before."""
    ways = max(2, min(12, length // 2))
    keys, labels = material.words.labels(ways, rng), material.words.labels(ways, rng)
    items, seen = [], set[int]()
    for way in rng.integers(ways, size=length).tolist():
        items.append(Item(None, keys[way], labels[way], is_taught=way in seen))
        seen.add(way)
    return items


def _named(material: Material, rng: np.random.Generator, length: int) -> list[tuple[int, str]]:
    """Pictures with their names, few of the classes much oftener than the others."""
    pool = rng.choice(material.numbers, size=max(2, length))
    numbers = pool[(len(pool) * rng.random(length) ** 1.5).astype(int)].tolist()
    return [(int(rng.choice(material.classes[n])), material.names[n]) for n in numbers]
