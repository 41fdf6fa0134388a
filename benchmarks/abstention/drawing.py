"""What all drawn pools of pictures need: a ground, a colour, a font."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.core.errors import ConfigurationError

SIDE: Final = 64

Generator = np.random.Generator
Draw = Callable[[Generator], Image.Image]


def colour(rng: Generator, *, least: int = 0, most: int = 256) -> tuple[int, int, int]:
    """Any colour whose channels lie within the bounds."""
    red, green, blue = rng.integers(least, most, 3)
    return int(red), int(green), int(blue)


def canvas(rng: Generator) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A light, plain ground to draw on."""
    image = Image.new("RGB", (SIDE, SIDE), colour(rng, least=200))
    return image, ImageDraw.Draw(image)


def package(name: str) -> Any:  # noqa: ANN401 - packages without types
    """A package that is installed for benchmarks alone.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"The pictures of this benchmark need the package {name.partition('.')[0]}; "
            'install "vlibrary[bench,demo]"'
        ) from error


def font(size: int) -> ImageFont.FreeTypeFont:
    """A font that ships with matplotlib."""
    folder = Path(package("matplotlib").get_data_path())
    return ImageFont.truetype(str(folder / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
