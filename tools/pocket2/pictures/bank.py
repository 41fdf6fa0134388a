"""The bank of drawings: every source in one place, by class, split into training and held out.

Knows classes and vendors; knows no augmentation and no words of a prompt.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
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
        device: Where pictures are made.
    """

    parts: tuple[Drawings, ...]
    keys: tuple[str, ...]
    words: tuple[str, ...]
    classes: np.ndarray
    vendors: np.ndarray
    places: np.ndarray
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

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
        side = self.parts[0].pixels.shape[1]
        out = torch.empty((len(rows), 4, side, side), device=self.device)
        vendors, places = self.vendors[rows], self.places[rows]
        for vendor in np.unique(vendors).tolist():
            chosen = np.flatnonzero(vendors == vendor)
            pixels = self._pixels[vendor][torch.from_numpy(places[chosen]).to(self.device)]
            scaled = pixels.float() / 255
            if self.parts[vendor].source.is_colored:
                premultiplied = scaled.permute(0, 3, 1, 2)
                premultiplied[:, :3] *= premultiplied[:, 3:]
            else:
                premultiplied = scaled[:, None].expand(-1, 4, -1, -1)
            out[torch.from_numpy(chosen).to(self.device)] = premultiplied
        return out

    @cached_property
    def _pixels(self) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(np.array(part.pixels)).to(self.device) for part in self.parts)


def join(parts: Sequence[Drawings], device: torch.device | str = "cpu") -> Bank:
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
    return Bank(
        tuple(parts), tuple(numbers), tuple(words), classes, vendors, places, torch.device(device)
    )


def rows_by_class(bank: Bank, rows: np.ndarray) -> dict[int, np.ndarray]:
    """The given drawings by class number."""
    found: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        found[int(bank.classes[row])].append(int(row))
    return {number: np.array(members) for number, members in found.items()}
