"""Pictures as the frozen vision side sees them, computed once: what episodes are made of.

Knows tokens, classes and what scenes show; knows no words and no decoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float16
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from tools.pocket2.pictures.bank import Bank
from tools.pocket2.pictures.scenes import ATTRIBUTES, UNKNOWN, group_scenes
from tools.pocket2.pictures.views import views
from tools.pocket2.sight import Sight, embed

_BATCH: Final = 512
_SHRINKAGE: Final = 0.1
VIEW, GROUP = range(2)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures by number.

    Attributes:
        tokens: The visual token of each.
        kinds: `VIEW` of one drawing, `GROUP` of one or several in a composed scene.
        drawings: The bank's drawing in each.
        classes: The bank's class of that drawing.
        values: By attribute, the index of each picture's value or `UNKNOWN`.
    """

    tokens: Float16[Tensor, "pictures width"]
    kinds: np.ndarray
    drawings: np.ndarray
    classes: np.ndarray
    values: Mapping[str, np.ndarray]

    def members(self, kind: int) -> dict[int, np.ndarray]:
        """The pictures of this kind by class."""
        rows = np.flatnonzero(self.kinds == kind)
        order = rows[np.argsort(self.classes[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(self.classes[order], prepend=-1))
        return {int(self.classes[part[0]]): part for part in np.split(order, starts[1:])}


def hang_gallery(sight: Sight, bank: Bank, rows: np.ndarray, *, groups: int, seed: int) -> Gallery:
    """A view of each of these drawings (which may come again), and scenes composed of some."""
    rng = np.random.default_rng(seed)
    parts = list(_parts(sight, bank, rows, groups=groups, rng=rng))
    drawings = np.concatenate([part.drawings for part in parts])
    return Gallery(
        tokens=torch.cat([part.tokens for part in parts]),
        kinds=np.concatenate([part.kinds for part in parts]),
        drawings=drawings,
        classes=bank.classes[drawings],
        values={name: np.concatenate([part.values[name] for part in parts]) for name in ATTRIBUTES},
    )


def spread(gallery: Gallery) -> Float[Tensor, "width width"]:
    """A linear map after which classes lie apart in all directions alike.

    Divides by the deviation that views of one class have from each other, takes out the direction
    of the mean, and brings tokens to a length of about 1. What pictures have in common is most of a
    token as the connector makes it, and a decoder normalises whole tokens.
    """
    members = [gallery.tokens[rows].double() for rows in gallery.members(VIEW).values()]
    tokens = torch.cat(members)
    within = torch.cat([rows - rows.mean(0) for rows in members])
    values, vectors = torch.linalg.eigh(within.T @ within / len(within))
    whiten = vectors @ torch.diag((values + _SHRINKAGE * values.mean()).rsqrt()) @ vectors.T
    mean = functional.normalize(whiten @ tokens.mean(0), dim=0)
    apart = whiten - torch.outer(mean, mean) @ whiten
    scaled: Tensor = apart / (tokens @ apart.T).norm(dim=-1).mean()
    return scaled.float()


def save_gallery(gallery: Gallery, path: Path) -> None:
    """Writes a gallery so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"kinds": gallery.kinds, "drawings": gallery.drawings, "classes": gallery.classes}
    arrays |= {f"value {name}": values for name, values in gallery.values.items()}
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    fresh = path.with_suffix(".new")
    save_file({"tokens": gallery.tokens, **tensors}, fresh)
    fresh.replace(path)


def load_gallery(path: Path) -> Gallery:
    """Reads what `save_gallery` wrote."""
    tensors = load_file(path)
    return Gallery(
        tokens=tensors["tokens"],
        kinds=tensors["kinds"].numpy(),
        drawings=tensors["drawings"].numpy(),
        classes=tensors["classes"].numpy(),
        values={
            name.removeprefix("value "): values.numpy()
            for name, values in tensors.items()
            if name.startswith("value ")
        },
    )


def _hung(
    tokens: Float[Tensor, "pictures width"],
    drawings: np.ndarray,
    *,
    kind: int,
    values: Mapping[str, np.ndarray],
) -> Gallery:
    missing = np.full(len(drawings), UNKNOWN)
    return Gallery(
        tokens=tokens.half(),
        kinds=np.full(len(drawings), kind),
        drawings=drawings,
        classes=drawings,
        values={name: values.get(name, missing) for name in ATTRIBUTES},
    )


def _parts(
    sight: Sight, bank: Bank, rows: np.ndarray, *, groups: int, rng: np.random.Generator
) -> Iterator[Gallery]:
    for part in _slices(rows):
        yield _hung(embed(sight, views(bank, part, rng)), part, kind=VIEW, values={})
    for part in _slices(rng.choice(rows, groups)):
        scenes = group_scenes(bank, part, rng)
        yield _hung(embed(sight, scenes.pixels), part, kind=GROUP, values=scenes.values)


def _slices(rows: np.ndarray) -> Sequence[np.ndarray]:
    return np.array_split(rows, max(1, -(-len(rows) // _BATCH)))
