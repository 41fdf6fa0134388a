"""`python -m benchmarks.made_tasks`: vectors on tasks beyond renaming, beside their opponents.

Items are about pictures of easy-VQA's `fit` part, questions about those of its `validation` part.
The defaults of the training were chosen on such questions, so the test part is not touched here.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from app.core.jobs import BALANCED_SHOTS
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone, load_backbone
from app.method.evaluation.conditions import Condition, in_context, steered
from app.method.evaluation.metrics import wilson_interval
from app.method.evaluation.report import evaluate
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train
from benchmarks.figures.wording import MAX_NEW_TOKENS, num_right, renamed, said
from benchmarks.harness import (
    AsJson,
    Device,
    Draws,
    OneBackbone,
    machine_conditions,
    model_conditions,
    run,
    show,
)
from benchmarks.setting.made_tasks import TASKS, made_task

CASES: Final = (
    "easy_vqa:8",
    "easy_vqa:100",
    "colour_of_circles:100",
    "colour_of_circles:1000",
    "other_words:100",
    "warm:100",
    "random:60",
)


def made_tasks(
    *,
    case: Annotated[
        list[str] | None,
        typer.Option(help=f"A task ({', '.join(TASKS)}) and how many items; may be repeated."),
    ] = None,
    seeds: Draws = 1,
    questions: Annotated[int, typer.Option(min=1, max=700, help="Of each task.")] = 400,
    backbone: OneBackbone = "pocket",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Accuracy of M2IV, ICL, copying and a table of words on tasks made of easy-VQA's pictures."""
    loaded = load_backbone(backbone, device=device)
    cache = FeatureCache(loaded)
    found: dict[str, Any] = {}
    for one in case or CASES:
        name, _, count = one.partition(":")
        if name not in TASKS or not count.isdecimal() or int(count) < BALANCED_SHOTS:
            raise typer.BadParameter(
                f"wanted one of {', '.join(TASKS)}, a colon and at least {BALANCED_SHOTS} items, "
                f"such as {CASES[0]}, found {one}"
            )
        asked = made_task(name, split="validation", count=questions, seed=0)
        draws = []
        for seed in range(seeds):
            items = made_task(name, split="fit", count=int(count), seed=seed)
            draws.append(_measure(loaded, items, asked, cache=cache, seed=seed))
            print(f"{one}, seed {seed}: {draws[-1]}", file=sys.stderr, flush=True)
        found[one] = _summary(draws, questions=len(asked))
    conditions = machine_conditions("made_tasks", questions=questions, seeds=seeds)
    show({**found, **model_conditions(loaded), **conditions}, as_json=as_json)


def _measure(
    backbone: Backbone,
    items: Sequence[Example],
    asked: Sequence[Example],
    *,
    cache: FeatureCache,
    seed: int,
) -> dict[str, Any]:
    """How many questions each method answers right, and what the training says of its vectors."""
    result = train(backbone, items, TrainingConfig(seed=seed), features=cache)
    conditions: dict[str, Condition] = {
        "m2iv": steered(result.vectors),
        "icl_balanced_8": in_context("icl_balanced", items, shots=BALANCED_SHOTS, seed=seed),
        "nearest_copy": in_context("nearest_copy", items, shots=1),
    }
    right = {}
    for name, condition in conditions.items():
        report = evaluate(
            backbone, asked, condition=condition, features=cache, max_new_tokens=MAX_NEW_TOKENS
        )
        right[name] = round(report.accuracy * report.items)
    told = said(backbone, asked, features=cache)
    answers = renamed(items, said(backbone, items, features=cache), told)
    right["word_table"] = num_right(asked, answers)
    right["zero_shot"] = num_right(asked, told)
    return {"right": right, "status": result.verdict.status, "steps": len(result.losses)}


def _summary(draws: Sequence[dict[str, Any]], *, questions: int) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    for name in draws[0]["right"]:
        each = [draw["right"][name] for draw in draws]
        mean, low, high = wilson_interval(sum(each), questions * len(draws))
        methods[name] = {
            "accuracy": round(mean, 4),
            "low": round(low, 4),
            "high": round(high, 4),
        }
    return {
        **methods,
        "status": [draw["status"] for draw in draws],
        "steps": [draw["steps"] for draw in draws],
    }


if __name__ == "__main__":
    run(made_tasks)
