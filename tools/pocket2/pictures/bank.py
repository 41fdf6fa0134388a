"""The bank of drawings: every source in one place, by class, split into training and held out.

Knows classes and vendors; knows no augmentation and no words of a prompt.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tools.pocket2.pictures.drawings import Drawings
from tools.pocket2.pictures.sources import Use, class_key, class_words, is_held_out


@dataclass(frozen=True, eq=False)
class Bank:
    """Drawings, numbered through all sources.

    Attributes:
        parts: The sources in their order.
        keys: Class names by class number.
        words: What a class is called, by class number.
        classes: The class of each drawing.
        vendors: The source of each drawing.
        places: Where in its source each drawing stands.
    """

    parts: tuple[Drawings, ...]
    keys: tuple[str, ...]
    words: tuple[str, ...]
    classes: np.ndarray
    vendors: np.ndarray
    places: np.ndarray

    @cached_property
    def held_out_classes(self) -> np.ndarray:
        """One Boolean a class."""
        return np.array([is_held_out(key) for key in self.keys])

    @cached_property
    def for_training(self) -> np.ndarray:
        """Drawings that may be trained on."""
        usable = np.array([part.source.use == "training" for part in self.parts])
        return np.flatnonzero(usable[self.vendors] & ~self.held_out_classes[self.classes])

    def of_held_out_classes(self, use: Use) -> np.ndarray:
        """Drawings of classes that are never trained on, of vendors of this use."""
        chosen = np.array([part.source.use == use for part in self.parts])
        return np.flatnonzero(chosen[self.vendors] & self.held_out_classes[self.classes])

    def is_colored(self, rows: np.ndarray) -> np.ndarray:
        """Whether each drawing brings its own colours."""
        colored: np.ndarray = np.array([part.source.is_colored for part in self.parts])
        chosen: np.ndarray = np.take(colored, self.vendors[rows])
        return chosen

    def rgba(self, rows: np.ndarray) -> Float[Tensor, "rows 4 side side"]:
        """Premultiplied colours and coverage in [0, 1]; drawings in one ink come in white."""
        first = self.parts[0].pixels
        out = np.empty((len(rows), first.shape[1], first.shape[2], 4), np.float32)
        for place, row in enumerate(rows):
            vendor = self.vendors[row]
            pixels = self.parts[vendor].pixels[self.places[row]]
            if not self.parts[vendor].source.is_colored:
                out[place] = (pixels.astype(np.float32) / 255)[..., None]
            else:
                coverage = pixels[..., 3:].astype(np.float32) / 255
                out[place, ..., :3] = pixels[..., :3] / np.float32(255) * coverage
                out[place, ..., 3:] = coverage
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def join(parts: Sequence[Drawings]) -> Bank:
    """One bank of several sources; drawings of one name are one class."""
    numbers: dict[str, int] = {}
    words: list[str] = []
    found: list[tuple[int, int, int]] = []
    for vendor, part in enumerate(parts):
        for place, name in enumerate(part.names):
            key, text = class_key(name), class_words(name)
            if key is None:
                continue
            if key not in numbers:
                numbers[key] = len(numbers)
                words.append(text)
            elif len(text) > len(words[numbers[key]]):
                words[numbers[key]] = text  # With spaces where another vendor wrote none.
            found.append((numbers[key], vendor, place))
    classes, vendors, places = np.array(found).T
    return Bank(tuple(parts), tuple(numbers), tuple(words), classes, vendors, places)


def rows_by_class(bank: Bank, rows: np.ndarray) -> dict[int, np.ndarray]:
    """The given drawings by class number."""
    found: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        found[int(bank.classes[row])].append(int(row))
    return {number: np.array(members) for number, members in found.items()}
