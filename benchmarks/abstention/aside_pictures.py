"""Pools of drawn pictures for the tasks that are kept aside: none of them chose anything."""

import math
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.abstention.drawing import SIDE, Draw, Generator, canvas, colour, font

LETTERS: Final = "ABCDEFGHKLMNPRSTUVWXYZ"
_SPOTS: Final = {
    1: ((1, 1),),
    2: ((0, 0), (2, 2)),
    3: ((0, 0), (1, 1), (2, 2)),
    4: ((0, 0), (0, 2), (2, 0), (2, 2)),
    5: ((0, 0), (0, 2), (1, 1), (2, 0), (2, 2)),
    6: ((0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)),
}


def _letter(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    place = (SIDE // 2 + int(rng.integers(-8, 9)), SIDE // 2 + int(rng.integers(-8, 9)))
    written = LETTERS[int(rng.integers(len(LETTERS)))]
    size = int(rng.integers(30, 56))
    draw.text(place, written, fill=colour(rng, most=160), font=font(size), anchor="mm")
    return image


def _die(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    left, top, side = (int(n) for n in (rng.integers(4, 14), rng.integers(4, 14), 44))
    draw.rounded_rectangle((left, top, left + side, top + side), 8, fill=colour(rng, least=120))
    for row, column in _SPOTS[int(rng.integers(1, 7))]:
        x, y = left + 8 + 14 * column, top + 8 + 14 * row
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill="black")
    return image


def _polygon(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    radius, turn = float(rng.uniform(12, 26)), int(rng.integers(360))
    x, y = (float(n) for n in rng.uniform(28, 36, 2))
    corners = int(rng.integers(3, 9))
    draw.regular_polygon((x, y, radius), corners, rotation=turn, fill=colour(rng, most=200))
    return image


def _flag(rng: Generator) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(image)
    is_upright = bool(rng.integers(2))
    for place in range(3):
        first, last = 10 + 15 * place, 24 + 15 * place
        box = (first, 14, last, 50) if is_upright else (6, first, 58, last)
        draw.rectangle(box, fill=colour(rng))
    return image


def _maze(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    step, ink = int(rng.integers(7, 11)), colour(rng, most=120)
    for x in range(0, SIDE, step):
        for y in range(0, SIDE, step):
            end = (x + step, y) if rng.integers(2) else (x, y + step)
            draw.line((x, y, *end), fill=ink, width=2)
    return image


def _sky(rng: Generator) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), colour(rng, most=50))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(15, 60))):
        x, y, r = (float(n) for n in (*rng.uniform(0, SIDE, 2), rng.uniform(0.3, 2.2)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour(rng, least=180))
    return image


def _network(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    nodes = [tuple(float(n) for n in rng.uniform(8, 56, 2)) for _ in range(rng.integers(4, 8))]
    for one, other in zip(nodes, [*nodes[2:], *nodes[:2]], strict=True):
        draw.line((*one, *other), fill="gray", width=2)
    for x, y in nodes:
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour(rng, most=220), outline="black")
    return image


def _map(rng: Generator) -> Image.Image:
    places = rng.uniform(0, SIDE, (int(rng.integers(5, 12)), 2))
    down, across = np.mgrid[:SIDE, :SIDE]
    distance = np.stack([np.hypot(down - y, across - x) for y, x in places])
    inks = rng.integers(90, 256, (len(places), 3)).astype(np.uint8)
    return Image.fromarray(inks[distance.argmin(0)])


def _barcode(rng: Generator) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(image)
    x = 4
    while x < SIDE - 6:
        width = int(rng.integers(1, 4))
        draw.rectangle((x, 10, x + width - 1, 54), fill="black")
        x += width + int(rng.integers(1, 4))
    return image


def _wheel(rng: Generator) -> Image.Image:
    image, draw = canvas(rng)
    edges = np.sort(rng.uniform(0, 360, int(rng.integers(3, 6))))
    for start, end in zip(edges, [*edges[1:], edges[0] + 360], strict=True):
        draw.pieslice((6, 6, 58, 58), float(start), float(end), fill=colour(rng))
    return image


def _wave(rng: Generator) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), "black")
    high, turns, shift = rng.uniform(6, 26), rng.uniform(1, 5), rng.uniform(0, math.tau)
    line = [
        (x, SIDE / 2 + high * math.sin(turns * math.tau * x / SIDE + shift)) for x in range(SIDE)
    ]
    ImageDraw.Draw(image).line(line, fill=colour(rng, least=120), width=2)
    return image


DRAWN: Final[dict[str, Draw]] = {
    "letters": _letter,
    "dice": _die,
    "polygons": _polygon,
    "flags": _flag,
    "mazes": _maze,
    "skies": _sky,
    "networks": _network,
    "maps": _map,
    "barcodes": _barcode,
    "wheels": _wheel,
    "waves": _wave,
}
