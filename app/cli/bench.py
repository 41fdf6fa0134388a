"""`vlibrary bench`: figures of docs/benchmarks, measured in one run and told as ratios."""

import json
import platform
import statistics
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import track

SHOTS: Final = 16

bench = typer.Typer(name="bench", help="Measure speed, as ratios of one run.", no_args_is_help=True)


@bench.callback()
def root() -> None:
    """Measure speed, as ratios of one run."""


@bench.command()
def prompts(
    *,
    items: Annotated[int, typer.Option(min=1, help="Questions a round.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    backbone: Annotated[str, typer.Option(help="pocket, a folder or a hub id.")] = "pocket",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """P6: time a question with 16 demonstrations over the time with a vector, same batches."""
    import torch

    from app.method.backbone import load_backbone
    from app.method.evaluation.conditions import n_shot, steered
    from app.method.evaluation.runner import evaluate
    from app.method.evaluation.tasks.loading import load_examples
    from app.method.features import FeatureCache
    from app.method.vectors import InContextVectors

    loaded = load_backbone(backbone, device=device)
    examples = load_examples("easy-vqa", split="test", limit=items, seed=0)
    support = load_examples("easy-vqa", split="train", limit=10 * SHOTS, seed=0)
    # Untrained vectors cost what trained ones cost.
    vectors = InContextVectors.initial(
        loaded.num_layers, loaded.hidden_size, generator=torch.Generator().manual_seed(0)
    )
    conditions = {"icl": n_shot(support, shots=SHOTS), "m2iv": steered(vectors)}
    cache = FeatureCache(loaded)
    times: dict[str, list[float]] = {name: [] for name in conditions}
    for _ in track(range(rounds), description="P6", console=Console(stderr=True)):
        for name, condition in conditions.items():
            report = evaluate(
                loaded, examples, condition=condition, features=cache, max_new_tokens=4
            )
            times[name].append(report.ms_per_query)
    middle = {name: statistics.median(values) for name, values in times.items()}
    _show(
        {
            "P6": round(middle["icl"] / middle["m2iv"], 2),
            "ms_per_query": {name: round(value, 3) for name, value in middle.items()},
            "backbone": loaded.name,
            "device": str(loaded.device),
            "dtype": str(loaded.dtype),
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "items": items,
            "rounds": rounds,
        },
        as_json=as_json,
    )


def _show(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    console = Console()
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
