"""First stage: vision tower and connector learn to tell thousands of things apart, in one token.

Knows pictures, classes and attributes; knows no words. The read-outs are thrown away afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional
from transformers import Idefics3ForConditionalGeneration

from tools.pocket2.pictures.bank import Bank, rows_by_class
from tools.pocket2.pictures.scenes import ATTRIBUTES, UNKNOWN, Scenes, group_scenes, pair_scenes
from tools.pocket2.pictures.sources import Use
from tools.pocket2.pictures.views import normalise, views

_PROXY_WIDTH: Final = 128
_SCALE: Final = 18.0
_SMOOTHING: Final = 0.1
_PAIR_TEMPERATURE: Final = 0.1
# Proxies of thousands of classes are noise for hundreds of steps; pairs of views are not.
_WEIGHTS: Final = {"alike": 1.0, "named": 0.1, "grouped": 0.3, "told": 0.5, "placed": 0.3}
_TRIALS: Final = 600


class Sight(nn.Module):
    """The seeing half of the model with the read-outs it is taught by."""

    def __init__(self, model: Idefics3ForConditionalGeneration, num_classes: int) -> None:
        super().__init__()
        self.tower = model.model.vision_model
        self.connector = model.model.connector
        width = self.connector.modality_projection.proj.out_features
        self.project = nn.Linear(width, _PROXY_WIDTH, bias=False)
        self.first = nn.Linear(width, _PROXY_WIDTH, bias=False)
        self.second = nn.Linear(width, _PROXY_WIDTH, bias=False)
        self.proxies = nn.Parameter(torch.randn(num_classes, _PROXY_WIDTH))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, size) for name, size in ATTRIBUTES.items()}
        )
        self.axis = nn.Linear(width, 2)

    def tokens(self, pixels: UInt8[Tensor, "images 3 side side"]) -> Float[Tensor, "images width"]:
        """The one visual token of each picture."""
        places = self.tower.embeddings
        patches = places.patch_embedding(normalise(pixels)).flatten(2).transpose(1, 2)
        # All pictures are of full size: no patch is masked, and positions are those of the table.
        states = self.tower.encoder(
            inputs_embeds=patches + places.position_embedding.weight, attention_mask=None
        ).last_hidden_state
        token: Tensor = self.connector(self.tower.post_layernorm(states))[:, 0]
        return token

    def class_logits(self, read: Float[Tensor, "images proxy"]) -> Float[Tensor, "images classes"]:
        """Scaled cosines to every class."""
        return (
            _SCALE
            * functional.normalize(read, dim=-1)
            @ functional.normalize(self.proxies, dim=-1).T
        )


@dataclass(frozen=True, eq=False)
class Taught:
    """The classes that are trained on.

    Attributes:
        bank: Of drawings.
        members: Drawings for training by class.
        numbers: Those classes, in the order of the proxies.
        has_several: Which of them several vendors have drawn.
        place: For every class of the bank its place among them, or `UNKNOWN`.
    """

    bank: Bank
    members: Mapping[int, np.ndarray]
    numbers: np.ndarray
    has_several: np.ndarray
    place: np.ndarray


def taught_classes(bank: Bank) -> Taught:
    """All classes of the bank that may be trained on."""
    members = rows_by_class(bank, bank.for_training)
    numbers = np.array(sorted(members))
    place = np.full(len(bank.keys), UNKNOWN)
    place[numbers] = np.arange(len(numbers))
    several = [len(np.unique(bank.vendors[members[number]])) > 1 for number in numbers.tolist()]
    return Taught(bank, members, numbers, np.array(several), place)


@dataclass(frozen=True, eq=False)
class Pairs:
    """What one step shows.

    Attributes:
        classes: Different ones.
        rows: Two drawings of each, of shape (classes, 2).
        rng: Of the step, for everything else.
    """

    classes: np.ndarray
    rows: np.ndarray
    rng: np.random.Generator


def draw_pairs(taught: Taught, rng: np.random.Generator, *, num_pairs: int) -> Pairs:
    """This many classes to be shown twice."""
    chosen = _bursts(taught, rng, count=num_pairs)
    rows = [_two(taught.members[number], taught.bank, rng) for number in chosen.tolist()]
    return Pairs(chosen, np.array(rows), rng)


def sight_losses(sight: Sight, taught: Taught, shown: Pairs) -> dict[str, Tensor]:
    """The losses of one step; half as many composed scenes as pairs are shown beside them."""
    bank, chosen, rows, rng = taught.bank, shown.classes, shown.rows, shown.rng
    num_pairs = len(chosen)
    quarter = num_pairs // 4
    groups = group_scenes(bank, rows[:quarter, 0], rng)
    pairs = pair_scenes(bank, rows[quarter : 3 * quarter, 0].reshape(-1, 2), rng)
    tokens = sight.tokens(
        torch.cat([views(bank, rows.T.ravel(), rng), groups.pixels, pairs.pixels])
    )
    single, group, pair = torch.split(
        tokens, [2 * num_pairs, len(groups.pixels), len(pairs.pixels)]
    )
    read = _centred(sight.project(single))
    # Whatever else shows a class is to find the second single view of it among all of them.
    second = read[num_pairs:]
    axis = torch.from_numpy(pairs.values["axis"]).to(bank.device)
    placed = [functional.cross_entropy(sight.axis(pair), axis)]
    for slot, head in enumerate((sight.first, sight.second)):
        places = torch.arange(quarter + slot, 3 * quarter, 2, device=bank.device)
        placed.append(_find_loss(head(pair), second, places))
    wanted = torch.from_numpy(taught.place[np.concatenate([chosen, chosen])]).to(bank.device)
    losses = {
        "alike": pair_loss(read),
        "named": functional.cross_entropy(
            sight.class_logits(read), wanted, label_smoothing=_SMOOTHING
        ),
        "grouped": _find_loss(
            sight.project(group), second, torch.arange(quarter, device=bank.device)
        ),
        "told": _attribute_loss(sight, group, groups),
        "placed": torch.stack(placed).mean(),
    }
    weighted = [weight * losses[name] for name, weight in _WEIGHTS.items()]
    return {"loss": torch.stack(weighted).sum(), **losses}


def _bursts(taught: Taught, rng: np.random.Generator, *, count: int) -> np.ndarray:
    """Different classes, half of them drawn by several vendors if there are so many."""
    several = rng.permutation(taught.numbers[taught.has_several])
    single = rng.permutation(taught.numbers[~taught.has_several])
    half = several[: max(count // 2, count - len(single))]
    return np.concatenate([half, single])[:count]


def pair_loss(read: Float[Tensor, "views proxy"]) -> Tensor:
    """Each view is to find the other view of its class among all; halves hold the same classes."""
    half = len(read) // 2
    other = torch.arange(2 * half, device=read.device).roll(half)
    itself = torch.eye(len(read), dtype=torch.bool, device=read.device)
    return functional.cross_entropy(_cosines(read, read).masked_fill(itself, float("-inf")), other)


def _find_loss(
    reads: Float[Tensor, "images proxy"],
    among: Float[Tensor, "views proxy"],
    places: Int[Tensor, " images"],
) -> Tensor:
    return functional.cross_entropy(_cosines(reads, among), places)


def _cosines(
    left: Float[Tensor, "left proxy"], right: Float[Tensor, "right proxy"]
) -> Float[Tensor, "left right"]:
    return _centred(left) @ _centred(right).T / _PAIR_TEMPERATURE


def _centred(reads: Float[Tensor, "images proxy"]) -> Float[Tensor, "images proxy"]:
    """Directions from the mean of the batch.

    From zero, all of them drift into one direction, where every picture is like every other.
    """
    return functional.normalize(reads - reads.mean(0), dim=-1)


def _two(members: np.ndarray, bank: Bank, rng: np.random.Generator) -> tuple[int, int]:
    """Two drawings of a class, of different vendors where it has several."""
    first = int(rng.choice(members))
    others = members[bank.vendors[members] != bank.vendors[first]]
    return first, int(rng.choice(others if len(others) else members))


def _attribute_loss(sight: Sight, tokens: Tensor, scenes: Scenes) -> Tensor:
    losses = []
    for name, head in sight.heads.items():
        targets = torch.from_numpy(scenes.values[name])
        if bool((targets != UNKNOWN).any()):
            targets = targets.to(tokens.device)
            losses.append(functional.cross_entropy(head(tokens), targets, ignore_index=UNKNOWN))
    return torch.stack(losses).mean()


@torch.no_grad()
def embed(
    sight: Sight, pixels: UInt8[Tensor, "images 3 side side"]
) -> Float[Tensor, "images width"]:
    """Visual tokens in batches, on the host."""
    return torch.cat([sight.tokens(part).cpu() for part in torch.split(pixels, 256)])


@torch.no_grad()
def one_shot_accuracy(
    reads: Float[Tensor, "images width"],
    classes: Int[Tensor, " images"],
    *,
    ways: int = 20,
    seed: int = 0,
) -> float:
    """How often the nearest of `ways` single examples is of the same class."""
    rng = np.random.default_rng(seed)
    unit = functional.normalize(reads - reads.mean(0), dim=-1)
    members = {int(c): np.flatnonzero(classes.numpy() == c) for c in np.unique(classes.numpy())}
    usable = [c for c, rows in members.items() if len(rows) > 1]
    hits = []
    for _ in range(_TRIALS):
        ways_chosen = rng.choice(usable, size=min(ways, len(usable)), replace=False)
        support = [rng.permutation(members[int(c)])[:2] for c in ways_chosen]
        cosines = unit[[s[0] for s in support]] @ unit[int(support[0][1])]
        hits.append(int(cosines.argmax()) == 0)
    return float(np.mean(hits))


def sight_scores(sight: Sight, bank: Bank, *, num_images: int, seed: int = 0) -> dict[str, float]:
    """One-shot accuracy among 20 classes that no training sees, and attributes of their scenes.

    Every drawing is shown in at least two views, those of one class by several vendors among them.
    """
    rng = np.random.default_rng(seed)
    scores = {}
    uses: dict[str, Use] = {"new": "training", "new_vendor": "evaluation"}
    for name, use in uses.items():
        drawn = rng.permutation(bank.of_held_out_classes(use))[: num_images // 2]
        rows = np.resize(drawn, num_images)
        tokens = embed(sight, views(bank, rows, rng))
        scores[f"{name} one-shot"] = one_shot_accuracy(tokens, torch.from_numpy(bank.classes[rows]))
    scenes = group_scenes(
        bank, rng.choice(bank.of_held_out_classes("training"), num_images // 2), rng
    )
    tokens = embed(sight, scenes.pixels)
    for attribute, head in sight.heads.items():
        wanted = torch.from_numpy(scenes.values[attribute])
        found = head(tokens.to(bank.device)).argmax(-1).cpu() == wanted
        scores[attribute] = float(found[wanted != UNKNOWN].float().mean())
    return scores
