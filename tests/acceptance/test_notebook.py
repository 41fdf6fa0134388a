"""The notebook of the examples: executed as it lies there, and again with few steps."""

import json
import sys
from pathlib import Path
from typing import Any

from app.cli.processes.temporary import passing_folder, running_service, wait_ready
from tests.fakes.commands import run
from vlibrary_client import Client

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "many_shots.ipynb"
STEPS = "max_steps=STEPS"


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_it_was_executed_in_order_without_an_error() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"execute_result", "stream"}
    shown = json.dumps(outputs)
    assert "Its gain over its best part" in shown
    assert "<th>20 held-out items</th>" in shown


def test_its_cells_run_against_a_service() -> None:
    script = "\n".join("".join(cell["source"]) for cell in code_cells())
    assert script.count(STEPS) == 2
    with passing_folder() as folder, running_service(folder) as url, Client(url) as client:
        wait_ready(client)
        command = [sys.executable, "-c", script.replace(STEPS, "max_steps=20, trial_steps=0")]
        # Jupyter begins where the notebook lies.
        printed = run(command, NOTEBOOK.parent, VLIBRARY_URL=url)
        parts, *_ = client.vectors.list()
        assert len(parts.parents) == 2
        assert client.vectors.get("parts@prod").id == parts.id
    assert "Its gain over its best part" in printed
    assert printed.splitlines()[-1].startswith("without: ")
