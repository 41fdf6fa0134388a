"""What a pocket LVLM can do, measured on held-out renders while it learns and when it is done.

Knows items and hits; knows no training.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Idefics3ForConditionalGeneration

from tools.pocket.curriculum import MAX_ITEMS, Writer, episode, single_items
from tools.pocket.pool import ScenePool
from tools.pocket.reading import answer_logits


@torch.no_grad()
def scores_of_singles(
    model: Idefics3ForConditionalGeneration,
    writer: Writer,
    pool: ScenePool,
    *,
    features: Float[Tensor, "pool patches vision"],
) -> dict[str, float]:
    """Zero-shot accuracy by kind of question on plainly worded held-out items."""
    rng = np.random.default_rng(0)
    hits: dict[str, list[bool]] = {}
    for _ in range(8):
        rows = single_items(pool.scenes, rng, count=400)
        results = answer_logits(model, features, writer.write(rows)).hits().tolist()
        for (item,), hit in zip(rows, results, strict=True):
            hits.setdefault(item.kind, []).append(hit)
    return {kind: float(np.mean(values)) for kind, values in sorted(hits.items())}


@torch.no_grad()
def scores_of_episodes(
    model: Idefics3ForConditionalGeneration,
    writer: Writer,
    pool: ScenePool,
    *,
    features: Float[Tensor, "pool patches vision"],
    rows_each: int = 64,
    shots: tuple[int, ...] = (0, 1, 2, 4, 8, 16),
) -> dict[str, float]:
    """In-context accuracy by episode kind and number of shots on held-out images."""
    rng = np.random.default_rng(1)
    scores: dict[str, float] = {}
    for kind in ("questions", "rules", "labels"):
        rows = [episode(pool.scenes, rng, kind=kind, length=MAX_ITEMS) for _ in range(rows_each)]
        results = answer_logits(model, features, writer.write(rows)).hits()
        by_item = results.view(len(rows), -1).float().mean(0)
        scores |= {f"{kind}@{shot}": float(by_item[shot]) for shot in shots}
    return scores
