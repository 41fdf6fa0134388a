"""Drawings of many vendors as small pictures on disk, rendered once.

Knows packages and SVG; knows nothing of training.
"""

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import resvg_py
from PIL import Image

from tools.pocket2.packages import archive, read_members
from tools.pocket2.pictures.sources import Source

SIDE_PIXELS: Final = 64
_SVG: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
)
_LEAST_INK: Final = 0.01

OnCount = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Drawings:
    """All drawings of one source.

    Attributes:
        source: Whose they are.
        names: What the vendor calls each.
        pixels: RGBA of shape (count, side, side, 4), or ink alone of shape (count, side, side).
    """

    source: Source
    names: tuple[str, ...]
    pixels: np.ndarray


def render_source(
    source: Source, *, packages: Path, folder: Path, on_count: OnCount | None = None
) -> Drawings:
    """The drawings of a source, read from disk or rendered there first."""
    names = folder / f"{source.vendor}-{source.version}.json"
    arrays = names.with_suffix(".npy")
    if not names.exists():
        kept = _rendered(source, packages, on_count)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(arrays, np.stack(list(kept.values())))
        # The names come last: they say that the pixels are whole.
        names.write_text(json.dumps(list(kept)), encoding="utf-8")
    return Drawings(
        source=source,
        names=tuple(json.loads(names.read_text(encoding="utf-8"))),
        pixels=np.load(arrays, mmap_mode="r"),
    )


def _rendered(source: Source, packages: Path, on_count: OnCount | None) -> dict[str, np.ndarray]:
    icons = dict(_icons(archive(source.package, source.version, packages)))
    kept: dict[str, np.ndarray] = {}
    with ProcessPoolExecutor() as pool:
        rendered = pool.map(_pixels, icons.values(), chunksize=64)
        for index, (name, pixels) in enumerate(zip(icons, rendered, strict=True)):
            if pixels is not None:
                kept[name] = pixels if source.is_colored else pixels[..., 3]
            if on_count is not None and (index + 1) % 500 == 0:
                on_count(source.vendor, index + 1, len(icons))
    return kept


def _icons(package: Path) -> Iterator[tuple[str, str]]:
    (text,) = read_members(package, "package/icons.json".__eq__).values()
    content: dict[str, Any] = json.loads(text)
    for name, icon in content["icons"].items():
        if icon.get("hidden"):
            continue
        box = {
            "left": icon.get("left", 0),
            "top": icon.get("top", 0),
            "width": icon.get("width", content.get("width", 16)),
            "height": icon.get("height", content.get("height", 16)),
        }
        yield name, _SVG.format(body=icon["body"], **box)


def _pixels(svg: str) -> np.ndarray | None:
    """RGBA of a drawing fitted into a square; None where there is nothing to see."""
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE_PIXELS, skip_system_fonts=True)
    except ValueError:
        return None
    with Image.open(io.BytesIO(bytes(png))) as image:
        image.thumbnail((SIDE_PIXELS, SIDE_PIXELS))
        square = Image.new("RGBA", (SIDE_PIXELS, SIDE_PIXELS))
        square.paste(image, ((SIDE_PIXELS - image.width) // 2, (SIDE_PIXELS - image.height) // 2))
    pixels = np.asarray(square)
    return pixels if pixels[..., 3].mean() > 255 * _LEAST_INK else None
