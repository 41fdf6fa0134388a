"""Pools of pictures for `benchmarks.abstention`: drawn, photographed, and shipped by packages.

Every pool gives as many different pictures as are asked for, the same ones each time.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from app.core.pixels import decode
from app.method.evaluation.tasks.loading import load_examples
from benchmarks.abstention.aside_pictures import DRAWN
from benchmarks.abstention.drawing import SIDE, Draw, Generator, canvas, colour, font, package

COLOURS: Final = ("red", "green", "blue", "orange", "purple", "black", "brown", "teal")
GLYPHS: Final = "☀☂☃☎♞♫✈✂♥★♣♠⚓⚡☯☮✿❄♛⚙✎☁☘⌛"
WORDS: Final = ("open", "sale", "stop", "exit", "lunch", "north", "taxi", "news", "gate", "milk")


def pictures(pool: str, count: int, *, seed: int) -> list[Image.Image]:
    """Different pictures of a pool.

    Args:
        pool: One of `POOLS`.
        count: How many.
        seed: Of the draws; other seeds give other pictures, as far as the pool has any.

    Raises:
        ConfigurationError: A package that ships pictures is not installed.
    """
    return POOLS[pool](count, np.random.default_rng([seed, *pool.encode()]))


def _drawn(draw: Draw) -> Callable[[int, Generator], list[Image.Image]]:
    return lambda count, rng: [draw(rng) for _ in range(count)]


def _shapes(count: int, rng: Generator) -> list[Image.Image]:
    found: dict[str, Image.Image] = {}
    for example in load_examples(
        "easy-vqa", split="train", limit=3 * count, seed=int(rng.integers(2**31))
    ):
        if example.image is not None:
            found.setdefault(example.image_id, decode(example.image.data))
    return list(found.values())[:count]


def _digits(count: int, rng: Generator) -> list[Image.Image]:
    scans = package("sklearn.datasets").load_digits().images
    return [
        Image.fromarray((scan * 15.9).astype(np.uint8)).resize((SIDE, SIDE)).convert("RGB")
        for scan in scans[rng.permutation(len(scans))[:count]]
    ]


def _photographs() -> list[Image.Image]:
    datasets, matplotlib = package("sklearn.datasets"), package("matplotlib")
    shipped = [Image.fromarray(one) for one in datasets.load_sample_images().images]
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [*shipped, Image.open(portrait).convert("RGB")]


def _crops(which: tuple[int, ...]) -> Callable[[int, Generator], list[Image.Image]]:
    def cut(count: int, rng: Generator) -> list[Image.Image]:
        whole = _photographs()
        found = []
        for number in range(count):
            photograph = whole[which[number % len(which)]]
            side = int(rng.integers(120, min(photograph.size)))
            left = int(rng.integers(photograph.width - side + 1))
            top = int(rng.integers(photograph.height - side + 1))
            part = photograph.crop((left, top, left + side, top + side))
            found.append(part.resize((2 * SIDE, 2 * SIDE)))
        return found

    return cut


def _symbol(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    glyph = GLYPHS[int(rng.integers(len(GLYPHS)))]
    size = int(rng.integers(36, 58))
    place = (SIDE // 2 + int(rng.integers(-6, 7)), SIDE // 2 + int(rng.integers(-6, 7)))
    draw.text(place, glyph, fill=colour(rng, most=160), font=font(size), anchor="mm")
    return image


def _bars(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    count = int(rng.integers(3, 7))
    width = (SIDE - 8) // count
    for place in range(count):
        height = int(rng.integers(6, SIDE - 8))
        left = 5 + place * width
        draw.rectangle((left, SIDE - 4 - height, left + width - 3, SIDE - 4), fill=colour(rng))
    draw.line((3, 2, 3, SIDE - 4, SIDE - 2, SIDE - 4), fill="black")
    return image


def _curve(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    points = np.cumsum(rng.normal(0, 6, 12)) + SIDE / 2
    line = [(4 + 5 * place, float(np.clip(y, 3, SIDE - 5))) for place, y in enumerate(points)]
    draw.line((3, 2, 3, SIDE - 4, SIDE - 2, SIDE - 4), fill="black")
    draw.line(line, fill=colour(rng, most=180), width=2)
    return image


def _smiley(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    x, y, r = (int(n) for n in (rng.integers(28, 36), rng.integers(28, 36), rng.integers(20, 27)))
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(250, 210, int(rng.integers(60, 120))))
    for eye in (x - r // 3, x + r // 3):
        draw.ellipse((eye - 3, y - r // 3 - 3, eye + 3, y - r // 3 + 3), fill="black")
    low, high = (0, 180) if rng.integers(2) else (180, 360)
    box = (x - r // 2, y, x + r // 2, y + r // 2 + 4)
    draw.arc(box, low, high, fill="black", width=3)
    return image


def _clock(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    draw.ellipse((6, 6, 58, 58), outline="black", fill="white", width=2)
    for length, hand in ((14, 3), (22, 2)):
        angle = rng.random() * 2 * math.pi
        end = (32 + length * math.cos(angle), 32 + length * math.sin(angle))
        draw.line((32, 32, *end), fill=colour(rng, most=120), width=hand)
    return image


def _texture(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    step, ink = int(rng.integers(5, 13)), colour(rng, most=200)
    kind = int(rng.integers(3))
    for place in range(0, SIDE, step):
        if kind != 1:
            draw.rectangle((place, 0, place + step // 2, SIDE), fill=ink)
        if kind != 0:
            draw.rectangle((0, place, SIDE, place + step // 2), fill=ink)
    return image


def _sign(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    draw.rectangle((3, 16, 60, 48), outline=colour(rng, most=150), width=2)
    word = WORDS[int(rng.integers(len(WORDS)))]
    draw.text((32, 32), word, fill=colour(rng, most=120), font=font(18), anchor="mm")
    return image


def _noise(rng: Generator) -> Image.Image:
    kind = int(rng.integers(4))
    values: npt.NDArray[Any]
    if kind == 0:
        values = rng.integers(0, 256, (SIDE, SIDE, 3))
    elif kind == 1:
        values = rng.normal(128, 50, (SIDE, SIDE, 1)).repeat(3, axis=2)
    elif kind == 2:  # noqa: PLR2004 - kinds are numbered
        values = np.broadcast_to(np.array(colour(rng)), (SIDE, SIDE, 3))
    else:
        values = rng.integers(0, 256, (8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(2)) if rng.integers(2) else image


POOLS: Final[dict[str, Callable[[int, Generator], list[Image.Image]]]] = {
    "shapes": _shapes,
    "digits": _digits,
    "temple": _crops((0,)),
    "flower": _crops((1,)),
    "portrait": _crops((2,)),
    "photos": _crops((0, 1, 2)),
    "symbols": _drawn(_symbol),
    "bars": _drawn(_bars),
    "curves": _drawn(_curve),
    "smileys": _drawn(_smiley),
    "clocks": _drawn(_clock),
    "textures": _drawn(_texture),
    "signs": _drawn(_sign),
    "noise": _drawn(_noise),
    **{name: _drawn(draw) for name, draw in DRAWN.items()},
}
# Pools that show what others show.
SOURCES: Final = {"photos": ("temple", "flower", "portrait")}
