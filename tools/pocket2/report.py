"""The finished `pocket-2` on disk: one checkpoint, its measured abilities, its model card.

Knows files and figures; knows no training.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from transformers import Idefics3ForConditionalGeneration

from tools.pocket2.anatomy import make_model, make_processor
from tools.pocket2.building import Plan, Supplies
from tools.pocket2.gallery import Gallery
from tools.pocket2.pictures.sources import SOURCES
from tools.pocket2.reading.curves import (
    SHOTS,
    MakeEpisode,
    accuracy_by_shots,
    binding_episodes,
    nearest_by_shots,
)
from tools.pocket2.reading.episodes import draw_episode
from tools.pocket2.reading.material import Difficulty, Material, gather
from tools.pocket2.reading.reader import Reader, Writer
from tools.pocket2.reading.words import PROSE, RANKED
from tools.pocket2.sight import Sight

_DTYPE: Final = torch.bfloat16
_LENGTH: Final = max(SHOTS) + 1


def assemble(supplies: Supplies, sight: Sight, reader: Reader) -> Idefics3ForConditionalGeneration:
    """The whole model: what sees, what reads, and the adapter folded into the connector."""
    model = make_model(supplies.tokenizer)
    sight, reader = sight.cpu(), reader.cpu()
    model.model.vision_model.load_state_dict(sight.tower.state_dict())
    model.model.connector.load_state_dict(sight.connector.state_dict())
    model.model.text_model.load_state_dict(reader.text.state_dict())
    projection = model.model.connector.modality_projection.proj
    projection.weight.data = reader.adapter.weight.data @ projection.weight.data
    model.train(mode=False)
    return model


def write_checkpoint(
    supplies: Supplies, model: Idefics3ForConditionalGeneration, folder: Path
) -> None:
    """Saves model and processor in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype=_DTYPE).save_pretrained(folder)  # type: ignore[call-arg]  # transformers widens torch's signature
    make_processor(supplies.tokenizer).save_pretrained(folder)


def measure(
    supplies: Supplies, reader: Reader, galleries: Mapping[str, Gallery], *, episodes: int
) -> dict[str, dict[int, float]]:
    """Accuracy by shots on pictures and classes that no training saw, by kind of episode.

    Copying the answer of the most similar demonstration stands beside every binding.
    """
    read = (reader, Writer(supplies.tokenizer))
    curves: dict[str, dict[int, float]] = {}
    for name in ("new", "new_vendor"):
        material = gather(galleries[name], supplies.words, supplies.bank.words)
        for ways in (2, 5, 10):
            make = binding_episodes(material, ways=ways, length=_LENGTH)
            label = f"{name}, {ways} ways"
            curves[label] = accuracy_by_shots(read, material, make, episodes=episodes)
            curves[f"{label}, copied"] = nearest_by_shots(material, make, episodes=episodes)
    material = gather(galleries["new"], supplies.words, supplies.bank.words)
    for kind in ("rule", "frame values", "value", "recall"):
        make = _episodes_of(material, kind)
        curves[kind] = accuracy_by_shots(read, material, make, episodes=episodes)
    return curves


def _episodes_of(material: Material, kind: str) -> MakeEpisode:
    difficulty = Difficulty(shares={kind: 1.0})
    return lambda rng: draw_episode(material, difficulty, rng, length=_LENGTH)


def card(curves: Mapping[str, Mapping[int, float]], plan: Plan, *, parameters: int) -> str:
    """The model card in Markdown."""
    rows = [
        f"| {name} | "
        + " | ".join(f"{curve[shots]:.1%}" if shots in curve else "" for shots in SHOTS)
        + " |"
        for name, curve in curves.items()
    ]
    licences = [
        f"| {source.package} {source.version} | {source.licence} | {source.use} |"
        for source in SOURCES
    ]
    return _CARD.format(
        parameters=parameters / 1e6,
        header=" | ".join(map(str, SHOTS)),
        rules="---: | " * len(SHOTS),
        rows="\n".join(rows),
        licences="\n".join(licences),
        texts=f"{RANKED[0]} {RANKED[1]} (MIT) and {PROSE[0]} {PROSE[1]} (public domain)",
        plan=json.dumps(asdict(plan), indent=2),
    )


def abilities(curves: Mapping[str, Mapping[int, float]], *, parameters: int) -> dict[str, Any]:
    """What the card tells, for programs."""
    in_context = {
        f"{name}@{shots}": round(value, 4)
        for name, curve in curves.items()
        for shots, value in curve.items()
    }
    return {"parameters": parameters, "in_context": in_context}


_CARD: Final = """\
---
license: apache-2.0
pipeline_tag: image-text-to-text
---
# pocket-2

A small vision-language model that is taught to bind names to pictures from demonstrations: the
Idefics3 classes of transformers, {parameters:.2f} million parameters in bfloat16, 64x64 input, one
visual token an image, a byte-level BPE tokenizer of a general vocabulary.

## How it was made

`python -m tools.pocket2` makes it from nothing (5.3 and 5.2 minutes of training on one H200):

1. Vision tower and connector learn to tell apart thousands of drawn things (emoji and icons of
   many vendors, in new colours, places and light each time), and to count, place and name colours
   in scenes composed of them. Then they are frozen.
2. The decoder learns from episodes: classes under labels drawn anew (words, invented words, codes)
   in bursts, attributes that no question names, several questions about one kind of scene, yes or
   no, answers inside words drawn anew, plain names and values, words bound to words, some prose.

One class in five, and one vendor, were kept from all of it, and so were digits, dice and clocks.

## Measured on classes, drawings and scenes it has never seen

The answer exactly as it should be, by number of demonstrations. `copied` answers with the most
similar demonstration's answer over the same visual tokens, as a yardstick. With many classes and
few demonstrations the answer has often not been shown yet.

| episodes | {header} |
| --- | {rules}
{rows}

## Drawings and their licences

| package | licence | use |
| --- | --- | --- |
{licences}

Words: {texts}.

## Limits

It was shown drawings only, no photographs; it was taught to read no text in pictures and no digits.
Zero-shot it answers what its plain questions asked in training; everything else has to be shown.

## Plan

```json
{plan}
```
"""
