"""`python -m benchmarks.word_table`: how much of easy-VQA a table of words gains.

From the same labelled items as `few_items` a table is learnt from what the backbone says zero-shot
to what is mostly right then. Whatever it gains is wording: it looks at no picture.
"""

from typing import Annotated, Any

import typer

from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import load_backbone
from app.method.evaluation.metrics import wilson_interval
from app.method.evaluation.tasks.loading import load_examples
from benchmarks.few_items import SIZES
from benchmarks.figures.wording import num_right, renamed, said
from benchmarks.harness import (
    AsJson,
    Device,
    Draws,
    OneBackbone,
    Questions,
    machine_conditions,
    model_conditions,
    run,
    show,
)


def word_table(
    *,
    size: Annotated[
        list[int] | None,
        typer.Option(min=1, max=3000, help="Labelled items; may be repeated. [32 100 500 3000]"),
    ] = None,
    seeds: Draws = 3,
    questions: Questions = 300,
    backbone: OneBackbone = "pocket",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Accuracy of zero-shot answers renamed by a table, by how many labels it is learnt from."""
    loaded = load_backbone(backbone, device=device)
    cache = FeatureCache(loaded)
    asked = load_examples("easy-vqa", split="test", limit=questions, seed=0)
    told = said(loaded, asked, features=cache)
    found: dict[str, Any] = {"zero_shot": _share(num_right(asked, told), len(asked))}
    for number in size or SIZES:
        each = []
        for seed in range(seeds):
            items = load_examples("easy-vqa", split="train", limit=number, seed=seed)
            answers = renamed(items, said(loaded, items, features=cache), told)
            each.append(num_right(asked, answers))
        found[str(number)] = {
            **_share(sum(each), len(asked) * seeds),
            "each": [round(right / len(asked), 4) for right in each],
        }
    conditions = machine_conditions("word_table", questions=len(asked), seeds=seeds)
    show({**found, **model_conditions(loaded), **conditions}, as_json=as_json)


def _share(right: int, count: int) -> dict[str, float]:
    mean, low, high = wilson_interval(right, count)
    return {
        "accuracy": round(mean, 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


if __name__ == "__main__":
    run(word_table)
