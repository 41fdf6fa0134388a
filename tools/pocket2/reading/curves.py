"""How well names are bound to pictures in context, by the number of demonstrations.

Knows episodes and hits; knows no training.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from tools.pocket2.reading.material import Item, Material
from tools.pocket2.reading.reader import Reader, Writer, item_hits

SHOTS: Final = (0, 1, 2, 4, 8, 16, 32, 64)
_ROWS: Final = 16

MakeEpisode = Callable[[np.random.Generator], list[Item]]


def accuracy_by_shots(
    read: tuple[Reader, Writer],
    material: Material,
    make: MakeEpisode,
    *,
    episodes: int,
    seed: int = 0,
    shots: Sequence[int] = SHOTS,
) -> dict[int, float]:
    """The share of items answered exactly after so many demonstrations.

    Episodes of the greatest length are read once: what stands before an item is its demonstrations,
    and attention sees nothing after it.
    """
    reader, writer = read
    rng = np.random.default_rng(seed)
    hits = []
    for start in range(0, episodes, _ROWS):
        rows = [make(rng) for _ in range(min(_ROWS, episodes - start))]
        batch = writer.write(rows)
        tokens = material.gallery.tokens[batch.pictures].float().to(reader.device)
        hits.append(item_hits(reader, batch.to(reader.device), tokens).view(len(rows), -1).cpu())
    mean = torch.cat(hits).float().mean(0)
    return {shot: float(mean[shot]) for shot in shots if shot < len(mean)}


def binding_episodes(
    material: Material, *, ways: int, length: int, question: str = "?"
) -> MakeEpisode:
    """Balanced episodes: every class as often as every other, in any order, under new labels.

    No picture comes twice in an episode: classes with too few pictures are not drawn.
    """
    each = -(-length // ways)
    usable = [number for number, rows in material.classes.items() if len(rows) >= each]
    if len(usable) < ways:
        raise ValueError(f"wanted {ways} classes of {each} pictures, found {len(usable)}")

    def make(rng: np.random.Generator) -> list[Item]:
        numbers = rng.choice(usable, size=ways, replace=False)
        labels = material.words.labels(ways, rng)
        pictures = [rng.permutation(material.classes[int(number)])[:each] for number in numbers]
        order = rng.permutation(ways * each)[:length]
        return [
            Item(int(pictures[place % ways][place // ways]), question, labels[place % ways])
            for place in order.tolist()
        ]

    return make


def nearest_by_shots(
    material: Material,
    make: MakeEpisode,
    *,
    episodes: int,
    seed: int = 0,
    shots: Sequence[int] = SHOTS,
) -> dict[int, float]:
    """The same items answered by copying the answer of the most similar earlier picture."""
    rng = np.random.default_rng(seed)
    center = material.gallery.tokens.float().mean(0)
    hits: dict[int, list[bool]] = {shot: [] for shot in shots}
    for _ in range(episodes):
        items = make(rng)
        pictures = torch.tensor([item.picture for item in items])
        tokens = functional.normalize(material.gallery.tokens[pictures].float() - center, dim=-1)
        for shot, found in hits.items():
            if 0 < shot < len(items):
                best = int((tokens[:shot] @ tokens[shot]).argmax())
                found.append(items[best].answer == items[shot].answer)
    return {shot: float(np.mean(found)) for shot, found in hits.items() if found}


def flat(name: str, curve: Mapping[int, float]) -> dict[str, float]:
    """A curve as scores by name."""
    return {f"{name}@{shot}": value for shot, value in curve.items()}
