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

from benchmarks.abstention.pictures import SOURCES, pictures

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


def looks_like(one: Task, other: Task, *, part: str = "image") -> bool:
    """Whether a picture, or else a question, of the one may be of the other as well."""
    if part == "text":
        return not set(one.templates).isdisjoint(other.templates)
    return not set(SOURCES.get(one.pool, (one.pool,))).isdisjoint(
        SOURCES.get(other.pool, (other.pool,))
    )


def stored(
    name: str, pool: str, *templates: str, items: int = 60, same_as: str | None = None
) -> Task:
    """A task with vectors; the templates are its questions."""
    return Task(name=name, pool=pool, templates=templates, items=items, same_as=same_as)


def foreign(name: str, pool: str, *templates: str) -> Task:
    """A task without vectors; the templates are its questions."""
    return Task(name=name, pool=pool, templates=templates, is_stored=False)


COLOUR: Final = (
    "what color is the shape?",
    "what is the color of the shape?",
    "what color is present?",
)
SHAPE: Final = ("what shape is it?", "what shape is in the image?", "what is the shape?")
_DIGIT: Final = ("which digit is this?", "what digit is written here?", "read the digit")

STORED: Final = (
    # The same pictures, other questions; some share most of their words.
    stored("shapes-colour", "shapes", *COLOUR),
    stored("shapes-shape", "shapes", *SHAPE),
    stored(
        "shapes-is-shape",
        "shapes",
        "is there a {shape}?",
        "is this a {shape}?",
        "does the image contain a {shape}?",
        items=200,
    ),
    stored("shapes-mood", "shapes", "warm or cold?", "is it warm or is it cold?", items=24),
    stored("shapes-corners", "shapes", "how many corners are there?", "count the corners"),
    stored("digits-read", "digits", *_DIGIT, items=100),
    stored("digits-parity", "digits", "is the digit even?", "is this digit odd or even?"),
    stored("digits-is", "digits", "is this a {digit}?", "does it say {digit}?", items=120),
    stored("digits-loops", "digits", "how many closed loops has the digit?", items=32),
    stored("photos-things", "photos", "is there a {thing}?", "can you see a {thing}?", items=100),
    stored("photos-caption", "photos", "describe the photo", "write a caption for the photo"),
    stored("temple-style", "temple", "which building style is this?", "name the style"),
    stored("flower-species", "flower", "which species is this flower?", "name the flower"),
    stored("portrait-age", "portrait", "how old is the person?", "guess the age of the person"),
    # The same questions, other pictures.
    stored("symbols-shape", "symbols", *SHAPE),
    stored("symbols-colour", "symbols", *COLOUR),
    stored("symbols-meaning", "symbols", "what does the symbol mean?", "what is the sign for?"),
    stored("textures-colour", "textures", *COLOUR),
    stored("textures-pattern", "textures", "stripes or checks?", "which pattern is it?"),
    stored("bars-count", "bars", "how many bars are there?", "count the bars"),
    stored("bars-highest", "bars", "which bar is the highest?", "where is the highest bar?"),
    stored("curves-trend", "curves", "does the curve rise?", "is the trend up or down?"),
    stored("smileys-mood", "smileys", "is the face happy or sad?", "how does the face feel?"),
    stored("clocks-time", "clocks", "what time is it?", "which hour does the clock show?"),
    stored("signs-read", "signs", "what does the sign say?", "read the word on the sign"),
    stored("signs-is", "signs", "does it say {word}?", "is the word {word}?", items=80),
    # The same pictures and questions, other answers.
    stored("shapes-colour-spanish", "shapes", *COLOUR, same_as="shapes-colour"),
    stored("digits-read-roman", "digits", *_DIGIT, items=100, same_as="digits-read"),
)

FOREIGN: Final = (
    foreign("shapes-where", "shapes", "where is the shape?", "is the shape on the {place}?"),
    foreign("shapes-size", "shapes", "how large is the shape?", "is the shape large or small?"),
    foreign("shapes-nonsense", "shapes", "who won the match yesterday?", "blorp fizzle quank?"),
    foreign("digits-ink", "digits", "is the writing thick or thin?", "who wrote the digit?"),
    foreign("digits-sum", "digits", "what is the digit plus {number}?", "add {number} to it"),
    foreign("digits-colour", "digits", *COLOUR),
    foreign("photos-nonsense", "photos", "blorp fizzle quank?", "does the zorb glimmer?"),
    foreign("photos-weather", "photos", "what is the weather like?", "is it sunny in the photo?"),
    foreign("flower-count", "flower", "how many petals are there?", "count the petals"),
    foreign("temple-age", "temple", "how old is the building?", "when was it built?"),
    foreign("portrait-job", "portrait", "what is the job of the person?", "name the uniform"),
    foreign("symbols-count", "symbols", "how many symbols are there?", "count the points"),
    foreign("symbols-nonsense", "symbols", "which train leaves at {hour}?", "recite a poem"),
    foreign("textures-nonsense", "textures", "who is the president?", "sing me a song"),
    foreign("bars-colour", "bars", "what color is the {number} bar?", "which bar is {colour}?"),
    foreign("bars-shape", "bars", *SHAPE),
    foreign("curves-peaks", "curves", "how many peaks has the curve?", "where is the peak?"),
    foreign("smileys-age", "smileys", "how old is the face?", "is the face young or old?"),
    foreign("clocks-brand", "clocks", "who made the clock?", "is the clock broken?"),
    foreign("signs-colour", "signs", "what color is the sign?", "is the sign {colour}?"),
    foreign("noise-colour", "noise", *COLOUR),
    foreign("noise-digit", "noise", *_DIGIT),
    foreign("noise-things", "noise", "is there a {thing}?", "describe the photo"),
    foreign("noise-noise", "noise", "is this noise?", "what do you hear?"),
)
