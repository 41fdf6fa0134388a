"""`python -m tools.pocket2`: make `pocket-2` from nothing."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from tools.pocket2.building import WORK_FOLDER, Plan, build, hang_galleries, load_supplies
from tools.pocket2.report import abilities, assemble, card, measure, write_checkpoint


def main(
    *,
    work: Annotated[Path, typer.Option(help="Drawings, galleries, checkpoints.")] = WORK_FOLDER,
    output: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = WORK_FOLDER / "out",
    device: Annotated[str, typer.Option(help="Of torch: cuda, or cpu (far slower).")] = "cuda",
    loaders: Annotated[int, typer.Option(min=0, help="Processes that draw ahead.")] = 8,
    episodes: Annotated[int, typer.Option(min=1, help="To measure each figure with.")] = 300,
) -> None:
    """Train pocket-2 from nothing; an interrupted build goes on where it stopped."""
    torch.set_float32_matmul_precision("high")
    plan = Plan()
    supplies = load_supplies(work, device)
    sight, reader = build(plan, supplies, folder=work, loaders=loaders)
    model = assemble(supplies, sight, reader)
    write_checkpoint(supplies, model, output)
    print("Measuring ...", flush=True)
    galleries = hang_galleries(plan, supplies, sight, folder=work / "galleries")
    curves = measure(supplies, reader, galleries, episodes=episodes)
    count = sum(parameter.numel() for parameter in model.parameters())
    (output / "README.md").write_text(card(curves, plan, parameters=count))
    figures = json.dumps(abilities(curves, parameters=count), indent=2)
    (output / "abilities.json").write_text(figures + "\n")
    print(f"Saved {output}")


if __name__ == "__main__":
    typer.run(main)
