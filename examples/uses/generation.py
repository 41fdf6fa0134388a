"""Customised generation: language, format and style of answers, by strength."""

from collections.abc import Callable

from examples.uses.shapes import Bench, ask_about, facts

QUESTION = "what color is the shape?"
STRENGTHS = (0.0, 0.5, 0.75, 1.0)
_SPANISH = {
    "red": "rojo", "green": "verde", "blue": "azul", "yellow": "amarillo", "gray": "gris",
    "black": "negro", "teal": "turquesa", "brown": "marrón",
}  # fmt: skip
WISHES: dict[str, Callable[[str, str], str]] = {
    "language: Spanish": lambda _shape, color: _SPANISH[color],
    "format: colour and shape": lambda shape, color: f"{color} {shape}",
    "style: a sentence": lambda _shape, color: f"it is {color}",
}


def measure(bench: Bench) -> dict[str, dict[str, float]]:
    """The share of answers exactly as wished, by strength; 0 is the backbone alone."""
    found = {}
    for wish, answer in WISHES.items():
        vectors = bench.train(ask_about(facts("validation", bench.items), QUESTION, answer))
        asked = ask_about(facts("test", bench.questions), QUESTION, answer)
        found[wish] = {
            f"strength {strength}": bench.accuracy(asked, vectors, strength=strength)
            for strength in STRENGTHS
        }
    return found
