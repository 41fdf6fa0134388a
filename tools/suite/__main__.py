"""`python -m tools.suite`: fetch third-party pictures and write the suites of tasks."""

from pathlib import Path
from typing import Annotated

import typer

from app.method.experiments.suite import suites_folder
from tools.pocket2.building import WORK_FOLDER
from tools.suite import clothes, digits, emoji, scenes, shapes, stamps
from tools.suite.items import write_suite


def main(
    *,
    work: Annotated[Path, typer.Option(help="Packages and rendered drawings.")] = WORK_FOLDER,
    output: Annotated[
        Path, typer.Option(default_factory=suites_folder, help="Where the suites go.")
    ],
) -> None:
    """Write the suite `pocket`, and `development`, which recipes are chosen on."""
    print("Fetching and rendering drawings ...", flush=True)
    drawings = emoji.load_drawings(work)
    debian = work / "debian"
    garments = clothes.clothes_folder(debian)
    tasks = [
        *shapes.shape_tasks(),
        *digits.digit_tasks(digits.load_digits()),
        *clothes.clothes_tasks(garments),
        *emoji.emoji_tasks(drawings),
        *stamps.stamp_tasks(stamps.stamps_folder(debian)),
        *scenes.scene_tasks(drawings),
    ]
    write_suite("pocket", tasks, output / "pocket")
    choosing = [
        *shapes.choosing_tasks(),
        *clothes.choosing_tasks(garments),
        *emoji.choosing_tasks(drawings),
    ]
    write_suite("development", choosing, output / "development")
    print(f"Wrote {len(tasks)} and {len(choosing)} tasks to {output}")


if __name__ == "__main__":
    typer.run(main)
