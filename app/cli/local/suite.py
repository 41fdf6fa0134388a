"""`vlibrary evaluate --suite`: every method on every task, resumable, in one table."""

import time
from pathlib import Path
from typing import Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.cli.console import plain_console, print_json, show_table
from app.cli.options import require_writable

_MAIN_ITEMS: Final = "100"
_COLUMNS: Final = (
    "method", "accuracy", "95 % interval", "parameters", "train s", "tokens", "ms / question",
    "collapsed",
)  # fmt: skip


def run(
    *,
    suite: str,
    backbone: str,
    revision: str | None,
    device: str,
    dtype: str,
    methods: str,
    items: str,
    seeds: int,
    shots: str,
    questions: int,
    tasks: tuple[str, ...],
    output: Path,
    is_kept_only: bool,
    as_json: bool,
) -> None:
    """Measures what is missing, and prints the tables of everything that was asked for."""
    from app.method.backbone.loading import load_backbone
    from app.method.experiments.methods import ALONE, expand
    from app.method.experiments.runs import PROTOCOL, SuitePlan, kept_cells, run_file, run_suite
    from app.method.experiments.suite import load_suite
    from app.method.experiments.summary import summarize

    plan = SuitePlan(
        methods=expand(methods),
        items=_numbers(items, "--items"),
        seeds=seeds,
        questions=questions,
        shots=_numbers(shots, "--shots"),
        tasks=tasks,
    )
    given = {
        "suite": suite, "backbone": backbone, "revision": revision, "device": device,
        "dtype": dtype, "methods": methods, "items": items, "shots": shots, "seeds": seeds,
        "questions": questions,
    }  # fmt: skip
    words = [f"--{name} {value}" for name, value in given.items() if value not in {None, "auto"}]
    words += [f"--task {task}" for task in tasks]
    if not is_kept_only:
        require_writable(output)
    found = load_suite(suite)
    loaded = load_backbone(backbone, revision=revision, device=device, dtype=dtype)
    file = run_file(output, suite=found, backbone=loaded, plan=plan)
    began = time.monotonic()
    with _progress() as progress:
        bar = progress.add_task("cells", total=None)

        def on_cell(done: int, total: int, result: Any) -> None:  # noqa: ANN401
            shown = f"{result.task} {result.method} {result.accuracy:.1%}"
            progress.update(bar, completed=done, total=total, description=shown)

        results = (
            kept_cells(found, plan, file=file)
            if is_kept_only
            else list(run_suite(loaded, found, plan, file=file, on_cell=on_cell))
        )
    tables = summarize(results)
    report: dict[str, Any] = {
        # What the methods are judged by first.
        "average": tables.get(_MAIN_ITEMS, [*tables.values()][-1])["average"],
        "protocol": PROTOCOL,
        "suite": found.name,
        "suite_digest": found.digest,
        "backbone": loaded.name,
        "fingerprint": loaded.description.fingerprint,
        "questions": plan.questions,
        "validation": plan.validation,
        # Of what is kept alone, there may be fewer than were asked for.
        "seeds": len({one.seed for one in results if one.method not in ALONE}) or plan.seeds,
        "shots": list(plan.shots),
        "tasks": [task.name for task in found.only(plan.tasks)],
        "command": f"vlibrary evaluate {' '.join(words)} --json",
        "cells": str(file),
        "items": tables,
    }
    if not is_kept_only:
        # What is kept may have been measured elsewhere.
        report |= {"seconds": round(time.monotonic() - began, 1), "machine": _machine(loaded)}
    if as_json:
        print_json(report)
        return
    for size, table in report["items"].items():
        show_table(_table(size, table))


def _machine(backbone: Any) -> dict[str, str]:  # noqa: ANN401 - torch stays out of the imports
    import platform

    import torch
    import transformers

    return {
        "processor": platform.processor() or platform.machine(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": str(backbone.device),
        "dtype": str(backbone.dtype).removeprefix("torch."),
    }


def _numbers(text: str, option: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(
            f"wanted whole numbers with commas between, found {text}", param_hint=option
        )
    return tuple(int(part) for part in parts)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=plain_console(stderr=True),
        transient=True,
    )


def _table(size: str, table: dict[str, Any]) -> Table:
    shown = Table(title=f"{len(table['tasks'])} tasks, {size} labelled items")
    for heading in _COLUMNS:
        shown.add_column(heading, justify="left" if heading == "method" else "right")
    for method, row in sorted(table["methods"].items(), key=lambda pair: -pair[1]["mean"]):
        shown.add_row(
            method,
            f"{row['mean']:.1%}",
            f"{row['low']:.1%} - {row['high']:.1%}",
            f"{row['parameters']:,.0f}",
            f"{row['train_seconds']:.1f}",
            f"{row['prompt_tokens']:.0f}",
            f"{row['ms_per_query']:.1f}",
            str(len(row["collapsed"])) if row["collapsed"] else "",
        )
    return shown
