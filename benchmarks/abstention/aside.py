"""Tasks that chose nothing: written when the law stood, on pools of their own.

They have all that makes it hard: the same pictures with other questions, the same questions on
pictures that look alike, pictures of no task, and tasks of few items.
"""

from typing import Final

from benchmarks.abstention.tasks import COLOUR, SHAPE, foreign, stored

_LETTER: Final = ("which letter is this?", "what letter is written here?", "read the letter")

ASIDE_STORED: Final = (
    stored("letters-read", "letters", *_LETTER),
    stored("letters-vowel", "letters", "is it a vowel?", "vowel or consonant?"),
    stored("letters-colour", "letters", *COLOUR),
    stored("dice-spots", "dice", "how many spots are there?", "what does the die show?"),
    stored("dice-parity", "dice", "is the number even?", "is the number odd or even?", items=32),
    stored("dice-colour", "dice", *COLOUR, items=100),
    stored("polygons-corners", "polygons", "how many corners are there?", "count the corners"),
    stored("polygons-shape", "polygons", *SHAPE),
    stored("flags-country", "flags", "which country has this flag?", "whose flag is it?"),
    stored("flags-upright", "flags", "are the stripes upright?", "upright or level?", items=24),
    stored("mazes-exit", "mazes", "where is the exit?", "can you leave at the {place}?"),
    stored("skies-count", "skies", "how many stars are there?", "count the stars"),
    stored("skies-sign", "skies", "which constellation is it?", "name the constellation"),
    stored("networks-links", "networks", "how many links are there?", "is it connected?"),
    stored("networks-colour", "networks", *COLOUR),
    stored("maps-regions", "maps", "how many regions are there?", "count the regions"),
    stored("barcodes-valid", "barcodes", "is the code valid?", "which product is it?"),
    stored("wheels-largest", "wheels", "which part is the largest?", "what part is {colour}?"),
    stored("waves-pitch", "waves", "is the tone high or low?", "how high is the tone?", items=40),
    stored("waves-loud", "waves", "is the tone loud?", "how loud is the tone?"),
    stored("letters-read-greek", "letters", *_LETTER, same_as="letters-read"),
)

ASIDE_FOREIGN: Final = (
    foreign("letters-font", "letters", "which font is it?", "is the letter bold?"),
    foreign("letters-shape", "letters", *SHAPE),
    foreign("dice-shape", "dice", *SHAPE),
    foreign("dice-who", "dice", "who rolled the die?", "is the die fair?"),
    foreign("polygons-colour", "polygons", *COLOUR),
    foreign("polygons-nonsense", "polygons", "blorp fizzle quank?", "who is the president?"),
    foreign("flags-colour", "flags", *COLOUR),
    foreign("mazes-colour", "mazes", *COLOUR),
    foreign("mazes-letter", "mazes", *_LETTER),
    foreign("skies-weather", "skies", "is it cloudy?", "what is the weather like?"),
    foreign("maps-capital", "maps", "what is the capital?", "where is the {place} border?"),
    foreign("maps-colour", "maps", *COLOUR),
    foreign("barcodes-price", "barcodes", "what does it cost?", "is it cheap?"),
    foreign("wheels-colour", "wheels", *COLOUR),
    foreign("waves-colour", "waves", *COLOUR),
    foreign("photos-corners", "photos", "how many corners are there?", "count the corners"),
    foreign("photos-regions", "photos", "how many regions are there?", "count the regions"),
    foreign("noise-count", "noise", "how many stars are there?", "count the stars"),
    foreign("noise-letter", "noise", *_LETTER),
    foreign("bars-largest", "bars", "which part is the largest?", "what part is {colour}?"),
)
