"""Pictures of nothing in particular, drawn by rule: what a backbone sees when no task is meant.

Families of pictures as statistical models of natural and of drawn images make them: noise whose
power falls with frequency, dead leaves, strokes, blocks and gradients, each under several settings.
How a backbone's features vary within a family tells which differences between two pictures mean
little.

Source: dead leaves and spectra as in Baradad et al., "Learning to See by Looking at Noise"
(arXiv 2106.05963).
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

SIDE: Final = 64
FAMILIES: Final = 24
PICTURES_A_FAMILY: Final = 12
_SEED: Final = 20_250_404

Generator = np.random.Generator


def background_families() -> list[list[Image.Image]]:
    """Families of pictures, the same ones each time: `FAMILIES` of `PICTURES_A_FAMILY` each."""
    return [_family(number) for number in range(FAMILIES)]


def _family(number: int) -> list[Image.Image]:
    rng = np.random.default_rng([_SEED, number])
    draw = _KINDS[number % len(_KINDS)]
    # What the members of a family have in common; each varies it a little.
    palette = rng.integers(0, 256, (4, 3)).astype(np.float64)
    scale = float(rng.uniform(0.3, 1.0))
    found = []
    for _ in range(PICTURES_A_FAMILY):
        varied = np.clip(palette + rng.normal(0, 25, palette.shape), 0, 255)
        found.append(draw(rng, varied, scale * float(rng.uniform(0.8, 1.25))))
    return found


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _ink(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = colour.astype(int)
    return int(red), int(green), int(blue)


def _spectrum(rng: Generator, palette: np.ndarray, scale: float) -> Image.Image:
    """Noise whose amplitude falls with the frequency; the larger the scale, the faster."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    frequency[0, 0] = 1.0 / SIDE
    shape = frequency[..., None] ** (-2.2 * scale)
    waves = np.fft.fft2(rng.normal(size=(SIDE, SIDE, 3)), axes=(0, 1)) * shape
    noise = np.real(np.fft.ifft2(waves, axes=(0, 1)))
    noise = (noise - noise.mean((0, 1))) / (noise.std((0, 1)) + 1e-9)
    return _picture(palette[0] + noise * (palette[1] / 4 + 10))


def _leaves(rng: Generator, palette: np.ndarray, scale: float) -> Image.Image:
    """Discs, boxes and triangles that hide one another."""
    image = Image.new("RGB", (SIDE, SIDE), _ink(palette[0]))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        radius = min(30.0, 2.0 + 6.0 * scale * float(rng.pareto(2.0)))
        x, y = (float(place) for place in rng.uniform(0, SIDE, 2))
        colour = _ink(np.clip(palette[int(rng.integers(4))] + rng.normal(0, 30, 3), 0, 255))
        box = (x - radius, y - radius, x + radius, y + radius)
        kind = int(rng.integers(3))
        if kind == 0:
            draw.ellipse(box, fill=colour)
        elif kind == 1:
            draw.rectangle(box, fill=colour)
        else:
            draw.regular_polygon((x, y, radius), 3, rotation=int(rng.integers(360)), fill=colour)
    return image


def _strokes(rng: Generator, palette: np.ndarray, scale: float) -> Image.Image:
    """Lines and arcs on a plain ground, as writing and diagrams have them."""
    image = Image.new("RGB", (SIDE, SIDE), _ink(palette[0]))
    draw = ImageDraw.Draw(image)
    for _ in range(int(3 + 12 * scale)):
        x, y = (float(place) for place in rng.uniform(4, SIDE - 4, 2))
        length, angle = float(rng.uniform(4, 40)), float(rng.uniform(0, 360))
        ink, width = _ink(palette[int(rng.integers(1, 4))]), int(rng.integers(1, 4))
        if rng.integers(2):
            box = (x - length / 2, y - length / 2, x + length / 2, y + length / 2)
            draw.arc(box, angle, angle + float(rng.uniform(60, 300)), fill=ink, width=width)
        else:
            turn = np.deg2rad(angle)
            end = (x + length * float(np.cos(turn)), y + length * float(np.sin(turn)))
            draw.line((x, y, *end), fill=ink, width=width)
    return image


def _objects(rng: Generator, palette: np.ndarray, scale: float) -> Image.Image:
    """One to three things on a plain ground."""
    image = Image.new("RGB", (SIDE, SIDE), _ink(palette[0] / 4 + 190))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        radius = float(rng.uniform(6, 24)) * scale
        x, y = (float(place) for place in rng.uniform(12, SIDE - 12, 2))
        corners, turn = int(rng.integers(3, 9)), int(rng.integers(360))
        ink = _ink(palette[int(rng.integers(1, 4))])
        draw.regular_polygon((x, y, radius), corners, rotation=turn, fill=ink)
    return image


def _blocks(rng: Generator, palette: np.ndarray, scale: float) -> Image.Image:
    """A grid of plain cells."""
    cells = max(2, int(16 * scale))
    chosen = palette[rng.integers(0, 4, (cells, cells))] + rng.normal(0, 15, (cells, cells, 3))
    return _picture(chosen).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _gradient(rng: Generator, palette: np.ndarray, scale: float) -> Image.Image:
    """One colour that passes into another, with ripples."""
    turn = float(rng.uniform(0, 2 * np.pi))
    across, down = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE))
    along = (across * np.cos(turn) + down * np.sin(turn) + 1.5) / 3
    along = np.clip(along + 0.15 * np.sin(along * 40 * scale), 0, 1)[..., None]
    return _picture(palette[0] * along + palette[1] * (1 - along))


_KINDS: Final[tuple[Callable[[Generator, np.ndarray, float], Image.Image], ...]] = (
    _spectrum,
    _leaves,
    _strokes,
    _objects,
    _blocks,
    _gradient,
)
