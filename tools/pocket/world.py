"""The rendered world the pocket LVLM grew up in: scenes of one to three equal objects.

Knows pixels and attributes; knows neither words nor tokens. Nothing of it comes from a published
data set.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Outline: TypeAlias = list[tuple[float, float]]

SIDE_PIXELS: Final = 64
_OVERSAMPLING: Final = 3

SHAPES: Final = (
    "circle",
    "rectangle",
    "triangle",
    "star",
    "cross",
    "ring",
    "diamond",
    "hexagon",
    "heart",
    "arrow",
)
COLORS: Final = {
    "red": (225, 25, 25),
    "green": (20, 200, 30),
    "blue": (25, 35, 225),
    "yellow": (245, 235, 20),
    "teal": (10, 130, 130),
    "brown": (150, 60, 40),
    "black": (12, 12, 12),
    "gray": (128, 128, 128),
    "orange": (250, 140, 10),
    "purple": (130, 25, 160),
    "pink": (250, 120, 185),
}
SIZES: Final = ("small", "large")
COUNTS: Final = ("one", "two", "three")
BACKGROUNDS: Final = ("light", "dark")
# What a scene can be asked about, with the values each attribute can take.
ATTRIBUTES: Final = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "size": SIZES,
    "count": COUNTS,
    "background": BACKGROUNDS,
}
_SINGLE_SHARE: Final = 0.7
_LIGHT_SHARE: Final = 0.8
# Radii in shares of the side; the gap between the two keeps the question answerable.
_RADII: Final = {"small": (0.09, 0.14), "large": (0.17, 0.26)}
_MAX_PLACEMENTS: Final = 60
_SMOOTH_SHARE: Final = 0.7
_BLUR_SHARE: Final = 0.2
_CLEAN_SHARE: Final = 0.5
_TURNED_SHARE: Final = 0.5
_OBLONG_SHARE: Final = 0.75
_LEAST_CONTRAST: Final = 40
_MIDDLE_GRAY: Final = 128


@dataclass(frozen=True)
class Scene:
    """What one image shows: a value of every attribute, as indices into `ATTRIBUTES`."""

    shape: int
    color: int
    size: int
    count: int
    background: int

    def value(self, attribute: str) -> str:
        """The name of the scene's value of this attribute."""
        index: int = getattr(self, attribute)
        return ATTRIBUTES[attribute][index]


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random scene: mostly single objects on light ground, as pictures of things are."""
    alone = rng.random() < _SINGLE_SHARE
    return Scene(
        shape=int(rng.integers(len(SHAPES))),
        color=int(rng.integers(len(COLORS))),
        size=int(rng.integers(len(SIZES))),
        count=0 if alone else int(rng.integers(1, len(COUNTS))),
        background=0 if rng.random() < _LIGHT_SHARE else 1,
    )


def render_scene(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draws the scene with jittered place, size, proportion, turn, colour, blur and noise.

    Returns:
        An RGB image of `SIDE_PIXELS` squared.
    """
    side = SIDE_PIXELS * _OVERSAMPLING
    low, high = ((225, 256), (20, 75))[scene.background]
    ground = rng.integers(low, high, size=3)
    fill = _jittered_color(scene, ground, rng)
    image = Image.new("RGB", (side, side), tuple(int(value) for value in ground))
    draw = ImageDraw.Draw(image)
    radii = rng.uniform(*_RADII[scene.value("size")], size=scene.count + 1)
    if scene.count > 0:
        radii *= 0.92
    for (x, y), radius in zip(_places(radii, rng), radii, strict=True):
        place = (x * side, y * side, radius * side)
        _draw_shape(draw, scene.value("shape"), place, fill=fill, rng=rng)
    return _finish(image, rng)


def _finish(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    is_smooth = rng.random() < _SMOOTH_SHARE
    resampling = Image.Resampling.BOX if is_smooth else Image.Resampling.NEAREST
    small = image.resize((SIDE_PIXELS, SIDE_PIXELS), resampling)
    if rng.random() < _BLUR_SHARE:
        small = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.7))))
    if rng.random() < _CLEAN_SHARE:
        return small
    noise = rng.normal(0.0, rng.uniform(0.0, 8.0), size=(SIDE_PIXELS, SIDE_PIXELS, 3))
    noisy = np.clip(np.asarray(small, dtype=np.float64) + noise, 0, 255)
    return Image.fromarray(noisy.astype(np.uint8))


def _jittered_color(
    scene: Scene, ground: np.ndarray, rng: np.random.Generator
) -> tuple[int, int, int]:
    base = np.array(COLORS[scene.value("color")], dtype=np.float64)
    color = np.clip(base * rng.uniform(0.88, 1.08) + rng.normal(0, 9, size=3), 0, 255)
    if np.abs(color - ground).max() < _LEAST_CONTRAST:  # Invisible objects teach nothing.
        color = np.clip(base + (45 if ground.mean() < _MIDDLE_GRAY else -45), 0, 255)
    red, green, blue = (int(value) for value in color)
    return red, green, blue


def _places(radii: np.ndarray, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Centres in shares of the side, far enough apart wherever that can be had."""
    places: list[tuple[float, float]] = []
    for radius in radii:
        for _ in range(_MAX_PLACEMENTS):
            x, y = rng.uniform(radius, 1 - radius, size=2)
            if all(
                math.hypot(x - px, y - py) > radius + radii[other] + 0.03
                for other, (px, py) in enumerate(places)
            ):
                break
        else:
            return _row_of_places(len(radii))
        places.append((float(x), float(y)))
    return places


def _row_of_places(count: int) -> list[tuple[float, float]]:
    return [((index + 0.5) / count, 0.25 + 0.5 * (index % 2)) for index in range(count)]


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    shape: str,
    place: tuple[float, float, float],
    *,
    fill: tuple[int, int, int],
    rng: np.random.Generator,
) -> None:
    x, y, radius = place
    if shape in {"circle", "ring"}:
        box = (x - radius, y - radius, x + radius, y + radius)
        if shape == "circle":
            draw.ellipse(box, fill=fill)
        else:
            draw.ellipse(box, outline=fill, width=max(3, int(radius * rng.uniform(0.3, 0.45))))
        return
    points = _outline(shape, rng)
    turn = float(rng.normal(0, 0.06)) if rng.random() < _TURNED_SHARE else 0.0
    cos, sin = math.cos(turn), math.sin(turn)
    draw.polygon(
        [(x + radius * (px * cos - py * sin), y + radius * (px * sin + py * cos))
         for px, py in points],
        fill=fill,
    )  # fmt: skip


def _outline(shape: str, rng: np.random.Generator) -> Outline:
    """The shape's corners in a square from -1 to 1, y pointing down."""
    return _OUTLINES[shape](rng)


def _rectangle(rng: np.random.Generator) -> Outline:
    is_oblong = rng.random() < _OBLONG_SHARE
    width, height = rng.uniform(0.45, 1.0, size=2) if is_oblong else (0.9, 0.9)
    return [(-width, -height), (width, -height), (width, height), (-width, height)]


def _triangle(rng: np.random.Generator) -> Outline:
    apex, half = float(rng.normal(0, 0.12)), float(rng.uniform(0.75, 1.0))
    top = float(rng.uniform(-1.0, -0.75))
    return [(apex, top), (half, 0.8), (-half, 0.8)]


def _diamond(rng: np.random.Generator) -> Outline:
    width = float(rng.uniform(0.6, 0.95))
    return [(0.0, -1.0), (width, 0.0), (0.0, 1.0), (-width, 0.0)]


def _cross(rng: np.random.Generator) -> Outline:
    arm = float(rng.uniform(0.25, 0.4))
    corner = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    corners = [corner]
    for _ in range(3):
        corners.append([(-y, x) for x, y in corners[-1]])
    return [point for quarter in corners for point in quarter]


def _arrow(_: np.random.Generator) -> Outline:
    upper = [(-1.0, -0.3), (0.1, -0.3), (0.1, -0.8)]
    return [*upper, (1.0, 0.0), *((x, -y) for x, y in reversed(upper))]


def _heart(_: np.random.Generator) -> Outline:
    def height(t: float) -> float:
        return 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)

    steps = np.linspace(0, 2 * math.pi, 28, endpoint=False).tolist()
    return [(math.sin(t) ** 3, -height(t) / 16) for t in steps]


def _wheel(corners: int, radii: Sequence[float]) -> Outline:
    return [
        (
            radii[index % len(radii)] * math.sin(2 * math.pi * index / corners),
            -radii[index % len(radii)] * math.cos(2 * math.pi * index / corners),
        )
        for index in range(corners)
    ]


_OUTLINES: Final[dict[str, Callable[[np.random.Generator], Outline]]] = {
    "rectangle": _rectangle,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "arrow": _arrow,
    "heart": _heart,
    "star": lambda _: _wheel(10, (1.0, 0.42)),
    "hexagon": lambda _: _wheel(6, (1.0,)),
}
