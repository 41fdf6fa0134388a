"""The finished pocket LVLM on disk: the checkpoint, its measured abilities, its model card."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from app.core.pictures import Picture
from app.method.backbone.loading import backbone_from_parts
from app.method.backbone.prompts import build_prompt, encode_prompts
from app.method.steering.greedy import answer_text, generate_encoded
from tools.pocket.abilities import scores_of_episodes
from tools.pocket.building import BuildPlan, PocketParts
from tools.pocket.curriculum import Writer
from tools.pocket.pool import ScenePool, patch_features, render_pool
from tools.pocket.questions import sample_question
from tools.pocket.words import LANGUAGES, SYNONYMS, VERDICTS

SHOTS: Final = (0, 1, 2, 4, 8, 16)
_QUESTIONS_EACH: Final = 3
_BATCH: Final = 100
_MAX_NEW_TOKENS: Final = 8
# Shown to nobody before: not the seeds of the training and validation pools.
_SEED_OFFSET: Final = 1000


def write_checkpoint(parts: PocketParts, plan: BuildPlan, folder: Path) -> dict[str, Any]:
    """Saves model, processor, measured abilities and card; returns the abilities.

    Args:
        parts: The trained model with its processor.
        plan: How it was made.
        folder: Where the files go; made when missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts.model.save_pretrained(folder)
    parts.processor.save_pretrained(folder)
    abilities = measure(parts, plan)
    (folder / "abilities.json").write_text(json.dumps(abilities, indent=2) + "\n")
    (folder / "README.md").write_text(card(abilities, plan))
    return abilities


def measure(parts: PocketParts, plan: BuildPlan) -> dict[str, Any]:
    """Parameters, zero-shot accuracy by kind of question, in-context accuracy by shots."""
    pool = render_pool(plan.held_out_images, seed=plan.seed + _SEED_OFFSET)
    features = patch_features(parts.model.model.vision_model, pool)
    in_context = scores_of_episodes(
        parts.model,
        Writer(parts.tokenizer),
        pool,
        features=features,
        rows_each=plan.report_items,
        shots=SHOTS,
    )
    return {
        "parameters": sum(parameter.numel() for parameter in parts.model.parameters()),
        "zero_shot": zero_shot_accuracy(parts, pool, num_items=_QUESTIONS_EACH * plan.report_items),
        "in_context": in_context,
    }


def zero_shot_accuracy(parts: PocketParts, pool: ScenePool, *, num_items: int) -> dict[str, float]:
    """Share of held-out questions answered with the right value, in whatever wording.

    Goes the way users go: images through the processor, answers through `generate_encoded`.
    """
    backbone = backbone_from_parts(parts.model, parts.processor, name="pocket")
    rng = np.random.default_rng(_SEED_OFFSET)
    hits: dict[str, list[bool]] = {}
    for start in range(0, num_items, _BATCH):
        rows = rng.integers(len(pool), size=min(_BATCH, num_items - start)).tolist()
        questions = [sample_question(pool.scenes[row], rng) for row in rows]
        prompts = [
            build_prompt(backbone, question.text, Picture.of(_image(pool.pixels[row])))
            for row, question in zip(rows, questions, strict=True)
        ]
        answers = generate_encoded(
            backbone, encode_prompts(backbone, prompts), max_new_tokens=_MAX_NEW_TOKENS
        )
        for question, answer in zip(questions, answers, strict=True):
            said = set(answer_text(backbone, answer).lower().split())
            hits.setdefault(question.kind, []).append(bool(said & wordings(question.value)))
    return {kind: round(float(np.mean(values)), 4) for kind, values in sorted(hits.items())}


def wordings(value: str) -> set[str]:
    """Every word that says this value in some convention."""
    words = {language[value] for language in LANGUAGES.values()}
    if value in SYNONYMS:
        return words | set(SYNONYMS[value])
    return words | {verdict[value == "no"] for verdict in VERDICTS}


def _image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def card(abilities: Mapping[str, Any], plan: BuildPlan) -> str:
    """The model card in Markdown."""
    in_context = abilities["in_context"]
    rows = "\n".join(
        f"| {name} | "
        + " | ".join(f"{in_context[f'{name}@{shots}']:.1%}" for shots in SHOTS)
        + " |"
        for name in ("questions", "rules", "labels")
    )
    zero_shot = "\n".join(f"| {kind} | {value:.1%} |" for kind, value in
                          abilities["zero_shot"].items())  # fmt: skip
    header = " | ".join(str(shots) for shots in SHOTS)
    return _CARD.format(
        parameters=abilities["parameters"] / 1e6,
        zero_shot=zero_shot,
        header=header,
        rules="---: | " * len(SHOTS),
        rows=rows,
        plan=json.dumps(asdict(plan), indent=2),
    )


_CARD: Final = """\
---
license: apache-2.0
pipeline_tag: image-text-to-text
---
# Pocket LVLM

A vision-language model small enough to ship with a package and to train on two CPU cores: the
Idefics3 classes of transformers, {parameters:.2f} million parameters in float32, 64x64 input,
four visual tokens an image, six decoder layers of width 128, a byte-level BPE tokenizer of 1,024
entries (any text encodes). It exists so that VLibrary runs, and can be tried and tested, without
a GPU or a network.

## How it was made

`python -m tools.pocket` makes it from nothing: no third-party image, text or weight is involved.

1. A synthetic world is rendered: 10 shapes, 11 colours, two sizes, one to three objects, light or
   dark ground, with jitter, blur and noise.
2. The vision tower learns to read the attributes off every visual token, then it is frozen.
3. Connector and decoder learn single questions in plain words, yes/no and negated ones included.
4. They learn from episodes of up to 17 items that share one convention of answering (synonyms,
   languages, yes/no or true/false, a bare word or a phrase), a rule to be read off the items
   ("?"), or labels that mean nothing.

None of the questions is phrased as in easy-VQA, and no image of it was used.

## Measured on renders it has never seen

Zero-shot, right value in whatever wording:

| question | accuracy |
| --- | ---: |
{zero_shot}

In context, exact wording, by number of demonstrations:

| episodes | {header} |
| --- | {rules}
{rows}

## Limits

It knows its world and nothing else: photographs, reading, counting beyond three and free
conversation are out of reach. How an answer is worded without demonstrations is the most usual
convention of its training, often not the one that is wanted: that is what demonstrations and in-
context vectors are there to tell it. `labels` above shows how far it binds arbitrary labels;
where that is low, take it as absent.

## Plan

```json
{plan}
```
"""
