"""A task about Tux Paint's stamps: what kind of thing a stamp shows."""

import re
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from tools.suite.debian import unpack
from tools.suite.emoji import Drawing, view
from tools.suite.items import SPLITS, Item, Task, by_split, generator_of

_PACKAGE: Final = "tuxpaint-stamps-default"
_KINDS: Final = {
    "animals": "animal", "food": "food", "plants": "plant", "vehicles": "vehicle",
    "household": "household", "symbols": "sign", "town": "building", "clothes": "clothes",
}  # fmt: skip
_COUNTS: Final = {"train": 1000, "validation": 150, "test": 400}
_SHARES: Final = (0.6, 0.7)
_SIDE: Final = 64
_VARIANT: Final = re.compile(r"(?:_?mirror|\d+|[_-])")


def stamps_folder(work: Path) -> Path:
    """Where the stamps lie, fetched where they are missing."""
    return unpack(_PACKAGE, work) / "usr" / "share" / "tuxpaint" / "stamps"


def stamp_tasks(folder: Path) -> list[Task]:
    """The task of the suite; variants of one stamp are in one split."""
    stamps = {kind: _by_motif(sorted((folder / kind).rglob("*.png"))) for kind in _KINDS}
    pools = {split: _share(stamps, split) for split in SPLITS}

    def make(split: str, rng: np.random.Generator, number: int) -> Item:
        kind = str(rng.choice(sorted(pools[split])))
        paths = pools[split][kind]
        path = paths[int(rng.integers(len(paths)))]
        return Item(
            image=view(_drawing(path), rng),
            picture=f"stamps/{path.relative_to(folder)}/{number}",
            question="what sort of thing is it?",
            answer=_KINDS[kind],
        )

    about = "Tux Paint's stamps (Debian package tuxpaint-stamps-default, GPL-2): what sort of thing"
    return [Task(name="stamps", about=about, items=by_split(_COUNTS, make, purpose="stamps"))]


def _by_motif(paths: list[Path]) -> list[list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        motif = f"{path.parent.name}/{_VARIANT.sub('', path.stem)}"
        found.setdefault(motif, []).append(path)
    return list(found.values())


def _share(stamps: dict[str, list[list[Path]]], split: str) -> dict[str, list[Path]]:
    pools = {}
    for kind, motifs in stamps.items():
        order = generator_of("stamps", kind).permutation(len(motifs)).tolist()
        low, high = (round(share * len(order)) for share in _SHARES)
        cut = {"train": order[:low], "validation": order[low:high], "test": order[high:]}[split]
        if paths := [path for place in cut for path in motifs[place]]:
            pools[kind] = paths
    return pools


def _drawing(path: Path) -> Drawing:
    with Image.open(path) as image:
        fitted = image.convert("RGBA")
    fitted.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (_SIDE, _SIDE))
    square.paste(fitted, ((_SIDE - fitted.width) // 2, (_SIDE - fitted.height) // 2))
    return Drawing(key=path.stem, vendor="tuxpaint", image=square)
