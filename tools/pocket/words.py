"""The words of the pocket's world: synonyms, languages and conventions of answering.

Which word an answer uses cannot be known from the image: it is drawn once an episode, so only
demonstrations reveal it. Knows words; knows neither pixels nor tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from tools.pocket.world import ATTRIBUTES

# English synonyms of each value, the most usual in this world first; the value's own name is
# deliberately not always the most usual one.
SYNONYMS: Final[Mapping[str, tuple[str, str, str]]] = {
    "circle": ("disc", "circle", "round"),
    "rectangle": ("box", "rectangle", "block"),
    "triangle": ("triangle", "wedge", "delta"),
    "star": ("star", "spark", "asterisk"),
    "cross": ("plus", "cross", "crosslet"),
    "ring": ("ring", "hoop", "loop"),
    "diamond": ("rhombus", "diamond", "lozenge"),
    "hexagon": ("hexagon", "honeycomb", "cell"),
    "heart": ("heart", "love", "valentine"),
    "arrow": ("pointer", "arrow", "dart"),
    "red": ("red", "crimson", "scarlet"),
    "green": ("emerald", "green", "lime"),
    "blue": ("blue", "azure", "navy"),
    "yellow": ("golden", "yellow", "lemon"),
    "teal": ("turquoise", "teal", "cyan"),
    "brown": ("chocolate", "brown", "tan"),
    "black": ("black", "ebony", "jet"),
    "gray": ("silver", "gray", "slate"),
    "orange": ("orange", "amber", "tangerine"),
    "purple": ("violet", "purple", "mauve"),
    "pink": ("pink", "rose", "salmon"),
    "small": ("tiny", "small", "little"),
    "large": ("big", "large", "huge"),
    "one": ("one", "1", "single"),
    "two": ("two", "2", "double"),
    "three": ("three", "3", "triple"),
    "light": ("bright", "light", "pale"),
    "dark": ("dark", "dim", "gloomy"),
}
LANGUAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "french": {
        "circle": "cercle", "rectangle": "carton", "triangle": "tripointe", "star": "étoile",
        "cross": "croix", "ring": "anneau", "diamond": "losange", "hexagon": "hexagone",
        "heart": "coeur", "arrow": "flèche", "red": "rouge", "green": "vert", "blue": "bleu",
        "yellow": "jaune", "teal": "sarcelle", "brown": "marron", "black": "noir", "gray": "gris",
        "orange": "orangé", "purple": "pourpre", "pink": "rosé", "small": "petit",
        "large": "grand", "one": "un", "two": "deux", "three": "trois", "light": "clair",
        "dark": "sombre", "yes": "oui", "no": "non",
    },
    "german": {
        "circle": "kreis", "rectangle": "rechteck", "triangle": "dreieck", "star": "stern",
        "cross": "kreuz", "ring": "reif", "diamond": "raute", "hexagon": "sechseck",
        "heart": "herz", "arrow": "pfeil", "red": "rot", "green": "grün", "blue": "blau",
        "yellow": "gelb", "teal": "petrol", "brown": "braun", "black": "schwarz", "gray": "grau",
        "orange": "apfelsine", "purple": "lila", "pink": "rosa", "small": "klein",
        "large": "groß", "one": "eins", "two": "zwei", "three": "drei", "light": "hell",
        "dark": "dunkel", "yes": "ja", "no": "nein",
    },
    "spanish": {
        "circle": "círculo", "rectangle": "caja", "triangle": "triángulo", "star": "estrella",
        "cross": "cruz", "ring": "anillo", "diamond": "rombo", "hexagon": "hexágono",
        "heart": "corazón", "arrow": "flecha", "red": "rojo", "green": "verde", "blue": "azul",
        "yellow": "amarillo", "teal": "cerceta", "brown": "café", "black": "negro",
        "gray": "plomo", "orange": "naranja", "purple": "morado", "pink": "fucsia",
        "small": "pequeño", "large": "grande", "one": "uno", "two": "dos", "three": "tres",
        "light": "claro", "dark": "oscuro", "yes": "verdad", "no": "mentira",
    },
}  # fmt: skip
VERDICTS: Final = (("yes", "no"), ("true", "false"), ("right", "wrong"))
_VERDICT_SHARES: Final = (0.6, 0.25, 0.15)
_SYNONYM_SHARES: Final = (0.42, 0.33, 0.25)
_PHRASES: Final = ("it is {}", "the answer is {}", "{} !", "i say {}")
# Labels that mean nothing: only a demonstration can bind one to a value.
LABELS: Final = (
    "foo", "bar", "dax", "wug", "zup", "kiv", "lom", "tep", "rix", "gan", "hob", "jep", "nuf",
    "pim", "quo", "sab", "vek", "yit", "cud", "mol", "A", "B", "C", "D", "E", "F", "G", "H",
    "alpha", "beta", "gamma", "omega", "apple", "river", "piano", "cloud", "tiger", "lamp",
)  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """How conventions are spread over episodes.

    Attributes:
        registers: Share of the episodes that keep to one register or language throughout; the
            others draw a synonym for each value on its own.
        weights: Of the registers: own names, then the first, second and third synonym of every
            value, then the languages.
        phrases: Share of the episodes that answer in phrases.
    """

    registers: float
    weights: tuple[float, ...]
    phrases: float


# In the tokenizer's corpus every word is to be frequent.
CORPUS_USAGE: Final = Usage(0.45, (0.0, 0.2, 0.2, 0.15, 0.15, 0.15, 0.15), 0.2)
# In episodes one word seen is to tell the others: with synonyms mostly drawn one by one,
# demonstrations of four words said nothing about a fifth. The first synonyms lead by far, so that
# every build words its answers alike when nothing is shown: at a tie, rounding decided.
EPISODE_USAGE: Final = Usage(0.75, (0.15, 0.4, 0.03, 0.12, 0.1, 0.1, 0.1), 0.12)


@dataclass(frozen=True)
class Lexicon:
    """One convention of answering.

    Attributes:
        words: The word of every value, and of "yes" and "no".
        phrase: What the word is put into, with `{}` in its place.
    """

    words: Mapping[str, str]
    phrase: str = "{}"

    def answer(self, value: str) -> str:
        """How this convention says a value."""
        return self.phrase.format(self.words[value])


def plain_lexicon() -> Lexicon:
    """The convention that calls every value by its own name."""
    names = {value: value for values in ATTRIBUTES.values() for value in values}
    return Lexicon(words=names | {"yes": "yes", "no": "no"})


def sample_lexicon(rng: np.random.Generator, usage: Usage = EPISODE_USAGE) -> Lexicon:
    """A convention: a whole register or language, or a synonym for each value on its own."""
    phrase = "{}"
    if rng.random() < usage.phrases:
        phrase = _PHRASES[int(rng.integers(len(_PHRASES)))]
    if rng.random() < usage.registers:
        index = int(rng.choice(len(usage.weights), p=usage.weights))
        return Lexicon(words=_register(index), phrase=phrase)
    words = {
        value: choices[int(rng.choice(3, p=_SYNONYM_SHARES))] for value, choices in SYNONYMS.items()
    }
    yes, no = VERDICTS[int(rng.choice(3, p=_VERDICT_SHARES))]
    return Lexicon(words=words | {"yes": yes, "no": no}, phrase=phrase)


def _register(index: int) -> Mapping[str, str]:
    if index == 0:
        return plain_lexicon().words
    if index > len(VERDICTS):
        return tuple(LANGUAGES.values())[index - 1 - len(VERDICTS)]
    yes, no = VERDICTS[index - 1]
    words = {value: choices[index - 1] for value, choices in SYNONYMS.items()}
    return words | {"yes": yes, "no": no}
