"""What `vlibrary evaluate` shows before a question, of a data set beside the one that is asked."""

import json
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from app.cli.app import build


def written(folder: Path, **colours: str) -> str:
    """A data set of one picture for each name, whose answer is its colour."""
    folder.mkdir()
    lines = []
    for name, colour in colours.items():
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
        row = {"image": f"{name}.png", "question": "what colour is it?", "answer": colour}
        lines.append(json.dumps({**row, "image_id": name}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")


def test_a_picture_demonstrates_nothing_to_itself_under_another_name(tmp_path: Path) -> None:
    asked = written(tmp_path / "asked", first="red")
    shown = written(tmp_path / "shown", copy="red", other="blue")
    found = CliRunner().invoke(
        build(),
        ("evaluate", asked, "--support", shown, "--condition", "nearest-copy", "--json"),
    )
    assert found.exit_code == 0, found.output
    # The answer of the same picture would be right.
    assert json.loads(found.stdout)["nearest-copy"]["accuracy"] == 0
