"""Draws the example: pictures of workshop parts, and what the workshop calls each of them.

`python examples/parts/make.py` writes `train/` (60 pictures to learn from) and `new/` (40 others to
ask about) beside this file, the same pictures each time. Nothing in a picture tells that a ring is
called "loop" here, so only examples can.
"""

import json
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

QUESTION = "Which part is this?"
NAMES = {
    "circle": "round",
    "rectangle": "block",
    "triangle": "delta",
    "star": "asterisk",
    "cross": "crosslet",
    "ring": "loop",
    "diamond": "lozenge",
    "hexagon": "cell",
    "heart": "valentine",
    "arrow": "dart",
}
COLORS = [
    (215, 35, 35),
    (35, 185, 50),
    (35, 50, 215),
    (240, 225, 40),
    (20, 130, 130),
    (150, 65, 40),
    (20, 20, 20),
    (240, 140, 25),
    (130, 35, 160),
    (240, 120, 180),
]
SETS = {"train": 60, "new": 40}
SIDE = 64
DRAWN_SIDE = 4 * SIDE
SEED = 2504


def ring_of_corners(num_corners: int, *radii: float) -> list[tuple[float, float]]:
    """Corners around the centre at radii taken in turn, the first one upwards."""
    turns = [2 * math.pi * place / num_corners for place in range(num_corners)]
    lengths = [radii[place % len(radii)] for place in range(num_corners)]
    return [
        (r * math.sin(turn), -r * math.cos(turn)) for r, turn in zip(lengths, turns, strict=True)
    ]


def heart() -> list[tuple[float, float]]:
    """The heart curve, scaled into the unit square."""
    turns = [2 * math.pi * place / 40 for place in range(40)]
    return [
        (
            math.sin(turn) ** 3,
            -(13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn)
              - math.cos(4 * turn)) / 16,
        )
        for turn in turns
    ]  # fmt: skip


CORNERS = {
    "rectangle": [(-0.95, -0.6), (0.95, -0.6), (0.95, 0.6), (-0.95, 0.6)],
    "triangle": [(0.0, -0.9), (0.9, 0.8), (-0.9, 0.8)],
    "star": ring_of_corners(10, 1.0, 0.42),
    "cross": [
        (-0.33, -1.0), (0.33, -1.0), (0.33, -0.33), (1.0, -0.33), (1.0, 0.33), (0.33, 0.33),
        (0.33, 1.0), (-0.33, 1.0), (-0.33, 0.33), (-1.0, 0.33), (-1.0, -0.33), (-0.33, -0.33),
    ],
    "diamond": ring_of_corners(4, 1.0, 0.75),
    "hexagon": ring_of_corners(6, 1.0),
    "heart": heart(),
    "arrow": [
        (-1.0, -0.3), (0.1, -0.3), (0.1, -0.8), (1.0, 0.0), (0.1, 0.8), (0.1, 0.3), (-1.0, 0.3),
    ],
}  # fmt: skip


def draw_part(shape: str, color: tuple[int, int, int], draw: random.Random) -> Image.Image:
    """One part at a random place and size on light ground."""
    ground = tuple(draw.randint(228, 255) for _ in range(3))
    image = Image.new("RGB", (DRAWN_SIDE, DRAWN_SIDE), ground)
    radius = draw.uniform(0.19, 0.26) * DRAWN_SIDE
    x, y = (draw.uniform(radius + 4, DRAWN_SIDE - radius - 4) for _ in range(2))
    canvas = ImageDraw.Draw(image)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        canvas.ellipse(box, fill=color)
    elif shape == "ring":
        canvas.ellipse(box, outline=color, width=round(0.38 * radius))
    else:
        canvas.polygon(
            [(x + radius * dx, y + radius * dy) for dx, dy in CORNERS[shape]], fill=color
        )
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def write_set(folder: Path, num_pictures: int, draw: random.Random) -> None:
    """Pictures with every shape equally often, and `metadata.jsonl` that says what each one is."""
    folder.mkdir(exist_ok=True)
    lines = []
    for place in range(num_pictures):
        shape = tuple(NAMES)[place % len(NAMES)]
        file_name = f"{place:02}.png"
        draw_part(shape, draw.choice(COLORS), draw).save(folder / file_name, optimize=True)
        item = {"file_name": file_name, "question": QUESTION, "answer": NAMES[shape]}
        lines.append(json.dumps(item) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Write every set beside this file."""
    draw = random.Random(SEED)
    for name, num_pictures in SETS.items():
        write_set(Path(__file__).parent / name, num_pictures, draw)


if __name__ == "__main__":
    main()
