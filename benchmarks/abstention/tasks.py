"""The tasks of `benchmarks.abstention`: whose pictures, which questions, vector or none.

A task's questions are templates whose slots are filled at random, so that a query may use words
that the task's items did not. Answers play no part in finding vectors; where two tasks differ in
their answers alone, `same_as` says so.
"""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.abstention.pictures import pictures

_SLOT: Final = re.compile(r"\{(\w+)\}")

SLOTS: Final[dict[str, tuple[str, ...]]] = {
    "colour": ("red", "green", "blue", "yellow", "gray", "black", "teal", "brown"),
    "shape": ("circle", "triangle", "rectangle"),
    "digit": tuple("0123456789"),
    "thing": (
        *("dog", "cat", "tree", "car", "house", "person", "bird", "cup", "table", "boat"),
        *("flower", "window", "door", "lamp", "chair", "road", "horse", "shoe", "bottle", "plane"),
    ),
    "place": ("left", "right", "top", "bottom", "middle"),
    "word": ("open", "sale", "stop", "exit", "lunch", "north", "taxi", "news", "gate", "milk"),
    "number": ("two", "three", "four", "five", "six"),
    "hour": ("one", "three", "six", "nine", "twelve"),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of question about a kind of picture.

    Attributes:
        name: What it is called in the figures.
        pool: Its pictures.
        templates: Its questions, with slots in braces.
        items: How many items its key is made of.
        is_stored: Whether the library has vectors for it.
        same_as: The stored task from which nothing but the answers tells it.
    """

    name: str
    pool: str
    templates: tuple[str, ...]
    items: int = 60
    is_stored: bool = True
    same_as: str | None = None

    def draw(self, count: int, *, seed: int) -> tuple[list[Image.Image], list[str]]:
        """Pictures with a question each; another seed gives others."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        shown = pictures(self.pool, count, seed=int(rng.integers(2**31)))

        def fill(slot: re.Match[str]) -> str:
            choices = SLOTS[slot[1]]
            return choices[int(rng.integers(len(choices)))]

        asked = [self.templates[int(rng.integers(len(self.templates)))] for _ in shown]
        return shown, [_SLOT.sub(fill, template) for template in asked]


def _stored(
    name: str, pool: str, *templates: str, items: int = 60, same_as: str | None = None
) -> Task:
    return Task(name=name, pool=pool, templates=templates, items=items, same_as=same_as)


def _foreign(name: str, pool: str, *templates: str) -> Task:
    return Task(name=name, pool=pool, templates=templates, is_stored=False)


_COLOUR: Final = (
    "what color is the shape?",
    "what is the color of the shape?",
    "what color is present?",
)
_SHAPE: Final = ("what shape is it?", "what shape is in the image?", "what is the shape?")
_DIGIT: Final = ("which digit is this?", "what digit is written here?", "read the digit")

STORED: Final = (
    # The same pictures, other questions; some share most of their words.
    _stored("shapes-colour", "shapes", *_COLOUR),
    _stored("shapes-shape", "shapes", *_SHAPE),
    _stored(
        "shapes-is-shape",
        "shapes",
        "is there a {shape}?",
        "is this a {shape}?",
        "does the image contain a {shape}?",
        items=200,
    ),
    _stored("shapes-mood", "shapes", "warm or cold?", "is it warm or is it cold?", items=24),
    _stored("shapes-corners", "shapes", "how many corners are there?", "count the corners"),
    _stored("digits-read", "digits", *_DIGIT, items=100),
    _stored("digits-parity", "digits", "is the digit even?", "is this digit odd or even?"),
    _stored("digits-is", "digits", "is this a {digit}?", "does it say {digit}?", items=120),
    _stored("digits-loops", "digits", "how many closed loops has the digit?", items=32),
    _stored("photos-things", "photos", "is there a {thing}?", "can you see a {thing}?", items=100),
    _stored("photos-caption", "photos", "describe the photo", "write a caption for the photo"),
    _stored("temple-style", "temple", "which building style is this?", "name the style"),
    _stored("flower-species", "flower", "which species is this flower?", "name the flower"),
    _stored("portrait-age", "portrait", "how old is the person?", "guess the age of the person"),
    # The same questions, other pictures.
    _stored("symbols-shape", "symbols", *_SHAPE),
    _stored("symbols-colour", "symbols", *_COLOUR),
    _stored("symbols-meaning", "symbols", "what does the symbol mean?", "what is the sign for?"),
    _stored("textures-colour", "textures", *_COLOUR),
    _stored("textures-pattern", "textures", "stripes or checks?", "which pattern is it?"),
    _stored("bars-count", "bars", "how many bars are there?", "count the bars"),
    _stored("bars-highest", "bars", "which bar is the highest?", "where is the highest bar?"),
    _stored("curves-trend", "curves", "does the curve rise?", "is the trend up or down?"),
    _stored("smileys-mood", "smileys", "is the face happy or sad?", "how does the face feel?"),
    _stored("clocks-time", "clocks", "what time is it?", "which hour does the clock show?"),
    _stored("signs-read", "signs", "what does the sign say?", "read the word on the sign"),
    _stored("signs-is", "signs", "does it say {word}?", "is the word {word}?", items=80),
    # The same pictures and questions, other answers.
    _stored("shapes-colour-spanish", "shapes", *_COLOUR, same_as="shapes-colour"),
    _stored("digits-read-roman", "digits", *_DIGIT, items=100, same_as="digits-read"),
)

FOREIGN: Final = (
    _foreign("shapes-where", "shapes", "where is the shape?", "is the shape on the {place}?"),
    _foreign("shapes-size", "shapes", "how large is the shape?", "is the shape large or small?"),
    _foreign("shapes-nonsense", "shapes", "who won the match yesterday?", "blorp fizzle quank?"),
    _foreign("digits-ink", "digits", "is the writing thick or thin?", "who wrote the digit?"),
    _foreign("digits-sum", "digits", "what is the digit plus {number}?", "add {number} to it"),
    _foreign("digits-colour", "digits", *_COLOUR),
    _foreign("photos-nonsense", "photos", "blorp fizzle quank?", "does the zorb glimmer?"),
    _foreign("photos-weather", "photos", "what is the weather like?", "is it sunny in the photo?"),
    _foreign("flower-count", "flower", "how many petals are there?", "count the petals"),
    _foreign("temple-age", "temple", "how old is the building?", "when was it built?"),
    _foreign("portrait-job", "portrait", "what is the job of the person?", "name the uniform"),
    _foreign("symbols-count", "symbols", "how many symbols are there?", "count the points"),
    _foreign("symbols-nonsense", "symbols", "which train leaves at {hour}?", "recite a poem"),
    _foreign("textures-nonsense", "textures", "who is the president?", "sing me a song"),
    _foreign("bars-colour", "bars", "what color is the {number} bar?", "which bar is {colour}?"),
    _foreign("bars-shape", "bars", *_SHAPE),
    _foreign("curves-peaks", "curves", "how many peaks has the curve?", "where is the peak?"),
    _foreign("smileys-age", "smileys", "how old is the face?", "is the face young or old?"),
    _foreign("clocks-brand", "clocks", "who made the clock?", "is the clock broken?"),
    _foreign("signs-colour", "signs", "what color is the sign?", "is the sign {colour}?"),
    _foreign("noise-colour", "noise", *_COLOUR),
    _foreign("noise-digit", "noise", *_DIGIT),
    _foreign("noise-things", "noise", "is there a {thing}?", "describe the photo"),
    _foreign("noise-noise", "noise", "is this noise?", "what do you hear?"),
)
