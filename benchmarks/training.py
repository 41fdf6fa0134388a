"""`python -m benchmarks.training`: a training beside the same one as published trainers do it."""

import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from app.method.backbone.embedding import embed
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import load_backbone
from app.method.evaluation.tasks.loading import load_examples
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train
from app.method.training.plan import make_plan
from app.method.training.progress import TrainingProgress
from benchmarks.figures.naive_training import naive_vectors
from benchmarks.harness import AsJson, Device, machine_conditions, model_conditions, run, show


def training(
    *,
    items: Annotated[int, typer.Option(min=8, help="Labelled items.")] = 200,
    queries: Annotated[int, typer.Option(min=1, help="Of them, asked; the others show.")] = 64,
    shots: Annotated[int, typer.Option(min=1, help="The teacher's demonstrations.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 64,
    backbone: Annotated[str, typer.Option(help="pocket, a folder or a hub id.")] = "pocket",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """P7: seconds of the published loop over ours, for the same vectors.

    Both are from the items to the vectors: ours with vision features, embeddings, queries and the
    teacher, the published loop with its steps alone. The key that `train` makes afterwards for
    retrieval is in `seconds` apart.
    """
    loaded = load_backbone(backbone, device=device)
    examples = load_examples("easy-vqa", split="train", limit=items, seed=0)
    config = TrainingConfig(
        shots=shots, num_queries=queries, max_steps=steps, trial_steps=0, held_out_fraction=0.0,
        keep="last", mimicry_of="all",
    )  # fmt: skip
    began = time.perf_counter()
    reached: list[float] = []

    def on_step(progress: TrainingProgress) -> None:
        if progress.phase == "student":
            reached.append(time.perf_counter() - began)

    result = train(loaded, examples, config, features=FeatureCache(loaded), on_step=on_step)
    whole, ours = time.perf_counter() - began, reached[-1]
    cache = FeatureCache(loaded)
    rows = embed(
        cache,
        [item.image for item in examples],
        [item.question for item in examples],
    )
    plan = make_plan(examples, rows, config)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("published loop", total=plan.num_steps)
        began = time.perf_counter()
        vectors = naive_vectors(
            loaded, plan, config, on_step=lambda step: progress.update(bar, completed=step)
        )
        theirs = time.perf_counter() - began
    wanted, found = vectors.shift(), result.vectors.shift().to(vectors.shift().device)
    apart = float((wanted - found).norm() / wanted.norm())
    figures: dict[str, Any] = {
        "P7": round(theirs / ours, 2),
        "seconds": {
            "published": round(theirs, 2),
            "ours": round(ours, 2),
            "key": round(whole - ours, 2),
        },
        "vectors_apart": apart,
    }
    sizes = {"items": items, "queries": plan.num_queries, "shots": shots, "steps": plan.num_steps}
    show(
        {
            **figures,
            **model_conditions(loaded),
            **machine_conditions("training", batch=plan.batch_size, **sizes),
        },
        as_json=as_json,
    )


if __name__ == "__main__":
    run(training)
