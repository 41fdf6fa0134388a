"""Episodes whose items ask different things: what is said depends on picture and question.

Turns pictures and words into items; knows neither tokens nor a model.
"""

from typing import Final

import numpy as np

from tools.pocket2.chance import happens
from tools.pocket2.reading.material import (
    ATTRIBUTE_WORDS,
    VALUE_WORDS,
    Difficulty,
    Item,
    Material,
    empty_question,
    valued,
)

_MOST_ATTRIBUTES: Final = 3


def asking(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """Several attributes of scenes, each asked for by its own question.

    A question says what it asks for, or is empty words that only the items give a meaning.
    """
    count = int(rng.integers(2, _MOST_ATTRIBUTES + 1))
    names = rng.permutation(list(VALUE_WORDS))[:count].tolist()
    is_plain, says_words = happens(rng, 0.5), happens(rng, 0.5)
    if is_plain:
        asked = {name: str(rng.choice(ATTRIBUTE_WORDS[name])) for name in names}
    else:
        phrases: set[str] = set()
        while len(phrases) < count:
            phrases.add(empty_question(material, rng))
        asked = dict(zip(names, sorted(phrases), strict=True))
    texts = {
        name: VALUE_WORDS[name]
        if says_words
        else material.words.labels(len(VALUE_WORDS[name]), rng)
        for name in names
    }
    items, seen = [], set[tuple[str, int | None]]()
    for name in rng.choice(names, size=length).tolist():
        ((picture, value),) = valued(material, rng, name=name, length=1)
        key = (name, None if says_words else value)
        is_known = key in seen or (is_plain and says_words)
        items.append(Item(picture, asked[name], texts[name][value], is_taught=is_known))
        seen.add(key)
    return items


def checking(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """Whether a picture shows what the question says: yes or no, or two labels for them."""
    says_words = happens(rng, 0.6)
    texts = ("no", "yes") if says_words else material.words.labels(2, rng)
    name = None if happens(rng, 0.4) else str(rng.choice(list(VALUE_WORDS)))
    items, seen = [], set[int]()
    for truth in rng.integers(2, size=length).tolist():
        if name is None:
            shown, other = rng.choice(material.numbers, size=2, replace=False).tolist()
            picture = int(rng.choice(material.classes[shown]))
            said = material.names[shown if truth else other]
        else:
            ((picture, value),) = valued(material, rng, name=name, length=1)
            wrong = (value + int(rng.integers(1, len(VALUE_WORDS[name])))) % len(VALUE_WORDS[name])
            said = VALUE_WORDS[name][value if truth else wrong]
        is_known = says_words or truth in seen
        items.append(Item(picture, f"{said}?", texts[truth], is_taught=is_known))
        seen.add(truth)
    return items
