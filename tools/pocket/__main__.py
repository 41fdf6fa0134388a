"""`python -m tools.pocket`: rebuild the bundled pocket LVLM from nothing."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.pocket.building import BuildPlan, build_pocket
from tools.pocket.report import write_checkpoint
from tools.pocket.stages import StageProgress

WORK_FOLDER: Final = Path("build/pocket")


def build(
    *,
    output: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = WORK_FOLDER / "out",
    work: Annotated[Path, typer.Option(help="Checkpoints of the stages.")] = WORK_FOLDER,
    scale: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of all steps and images, to try it out.")
    ] = 1.0,
) -> None:
    """Train the pocket LVLM from nothing; an interrupted build goes on where it stopped."""
    plan = BuildPlan() if scale == 1.0 else BuildPlan().scaled(scale)
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[loss]}"),
        console=console,
    ) as bars:
        tasks = {}

        def show(progress: StageProgress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, loss="")
            bars.update(
                tasks[progress.stage],
                completed=progress.step,
                total=progress.num_steps,
                loss=f"loss {progress.loss:.3f}" if progress.loss else "",
            )
            if progress.scores:
                scores = progress.scores.items()
                figures = "  ".join(f"{name} {value:.2f}" for name, value in scores)
                console.print(f"{progress.stage} {progress.step}: {figures}", highlight=False)

        parts = build_pocket(plan, folder=work, on_progress=show)
        console.print("Measuring ...")
        write_checkpoint(parts, plan, output)
    print(f"Saved {output}")


if __name__ == "__main__":
    typer.run(build)
