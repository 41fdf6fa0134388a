"""`python -m benchmarks.few_items`: vectors from few labelled items beside their opponents.

Every method gets the same labelled items of easy-VQA's training pictures and is asked the same
questions about its test pictures, which chose nothing: not a setting, not a step, not a strength.
"""

import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from app.core.jobs import BALANCED_SHOTS
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone, load_backbone
from app.method.evaluation.conditions import Condition, in_context, steered, zero_shot
from app.method.evaluation.metrics import wilson_interval
from app.method.evaluation.report import evaluate
from app.method.evaluation.tasks.loading import load_examples
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train
from app.method.training.progress import TrainingProgress
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

SIZES: Final = (32, 100, 500, 3000)
SHOTS: Final = 16
_MAX_NEW_TOKENS: Final = 8


def few_items(
    *,
    size: Annotated[
        list[int] | None,
        typer.Option(min=8, max=3000, help="Labelled items; may be repeated. [32 100 500 3000]"),
    ] = None,
    seeds: Draws = 3,
    questions: Questions = 300,
    backbone: OneBackbone = "pocket",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Accuracy of M2IV, ICL, kNN-ICL and copying by how many labelled items there are."""
    loaded = load_backbone(backbone, device=device)
    cache = FeatureCache(loaded)
    asked = load_examples("easy-vqa", split="test", limit=questions, seed=0)
    found: dict[str, Any] = {}
    for number in size or SIZES:
        draws = [
            _measure(loaded, asked, cache=cache, size=number, seed=seed) for seed in range(seeds)
        ]
        found[str(number)] = _summary(draws, questions=len(asked))
    show(
        {
            **found,
            **model_conditions(loaded),
            **machine_conditions("few_items", questions=len(asked), seeds=seeds),
        },
        as_json=as_json,
    )


def _measure(
    backbone: Backbone, asked: Sequence[Example], *, cache: FeatureCache, size: int, seed: int
) -> dict[str, Any]:
    """How many questions each method answers right with the labels of one draw."""
    items = load_examples("easy-vqa", split="train", limit=size, seed=seed)
    title = f"{size} items, seed {seed}"
    began = time.monotonic()
    result = train(
        backbone, items, TrainingConfig(seed=seed), features=cache, on_step=_Progress(title)
    )
    seconds = time.monotonic() - began
    shots = min(SHOTS, len(items))
    conditions: dict[str, Condition] = {
        "m2iv": steered(result.vectors),
        "icl_16": in_context("icl", items, shots=shots, seed=seed),
        "icl_balanced_8": in_context(
            "icl_balanced", items, shots=min(BALANCED_SHOTS, len(items)), seed=seed
        ),
        "knn_icl_16": in_context("knn_icl", items, shots=shots),
        "nearest_copy": in_context("nearest_copy", items, shots=1),
        "zero_shot": zero_shot(),
    }
    right: dict[str, int] = {}
    for name, condition in conditions.items():
        report = evaluate(
            backbone, asked, condition=condition, features=cache, max_new_tokens=_MAX_NEW_TOKENS
        )
        right[name] = round(report.accuracy * report.items)
        _tell(f"{title}: {name} {report.accuracy:.1%}")
    return {
        "right": right,
        "status": result.verdict.status,
        "steps": len(result.losses),
        "seconds": seconds,
    }


def _summary(draws: Sequence[dict[str, Any]], *, questions: int) -> dict[str, Any]:
    """Shares over all draws; the intervals take every answer as one of its own."""
    methods: dict[str, dict[str, Any]] = {}
    for name in draws[0]["right"]:
        each = [draw["right"][name] for draw in draws]
        mean, low, high = wilson_interval(sum(each), questions * len(draws))
        methods[name] = {
            "accuracy": round(mean, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "each": [round(right / questions, 4) for right in each],
        }
    gain = methods["m2iv"]["accuracy"] - methods["icl_16"]["accuracy"]
    return {
        **methods,
        "m2iv_minus_icl_16": round(gain, 4),
        "status": [draw["status"] for draw in draws],
        "steps": [draw["steps"] for draw in draws],
        "train_seconds": [round(draw["seconds"], 1) for draw in draws],
    }


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Progress:
    """Tells of each phase when it begins."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._phase = ""

    def __call__(self, progress: TrainingProgress) -> None:
        if progress.phase != self._phase:
            self._phase = progress.phase
            _tell(f"{self._title}: {self._phase}")


if __name__ == "__main__":
    run(few_items)
