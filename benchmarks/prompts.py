"""`python -m benchmarks.prompts`: what 16 demonstrations in the prompt cost beside a vector."""

import statistics
from typing import Annotated, Final

import typer

from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import load_backbone
from app.method.evaluation.conditions import in_context, steered
from app.method.evaluation.report import evaluate
from app.method.evaluation.tasks.loading import load_examples
from app.method.steering.dose import residual_norms
from app.method.training.loop import initial_vectors
from benchmarks.harness import (
    AsJson,
    Device,
    Rounds,
    bar,
    machine_conditions,
    model_conditions,
    run,
    show,
)

SHOTS: Final = 16


def prompts(
    *,
    items: Annotated[int, typer.Option(min=1, help="Questions a round.")] = 128,
    rounds: Rounds = 5,
    backbone: Annotated[str, typer.Option(help="pocket, a folder or a hub id.")] = "pocket",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """P6: time a question with 16 demonstrations over the time with a vector, same batches."""
    loaded = load_backbone(backbone, device=device)
    examples = load_examples("easy-vqa", split="test", limit=items, seed=0)
    support = load_examples("easy-vqa", split="train", limit=10 * SHOTS, seed=0)
    # Untrained vectors cost what trained ones cost.
    vectors = initial_vectors(loaded, norms=residual_norms(loaded), seed=0)
    conditions = {"icl": in_context("icl", support, shots=SHOTS), "m2iv": steered(vectors)}
    cache = FeatureCache(loaded)
    times: dict[str, list[float]] = {name: [] for name in conditions}
    for _ in bar(rounds, "P6"):
        for name, condition in conditions.items():
            report = evaluate(
                loaded, examples, condition=condition, features=cache, max_new_tokens=4
            )
            times[name].append(report.ms_per_query)
    middle = {name: statistics.median(values) for name, values in times.items()}
    show(
        {
            "P6": round(middle["icl"] / middle["m2iv"], 2),
            "ms_per_query": {name: round(value, 3) for name, value in middle.items()},
            **model_conditions(loaded),
            **machine_conditions("prompts", items=items, rounds=rounds),
        },
        as_json=as_json,
    )


if __name__ == "__main__":
    run(prompts)
