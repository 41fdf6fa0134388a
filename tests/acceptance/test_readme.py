"""What the README tells a new user to paste, pasted."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

from app.cli.processes.temporary import passing_folder, running_service, wait_ready
from tests.fakes.commands import run
from vlibrary_client import Client

ROOT = Path(__file__).resolve().parents[2]


def blocks(language: str, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_first_hour_ends_with_a_vector_that_is_better_than_zero_shot() -> None:
    (script,) = [block for block in blocks("python") if "examples/parts" in block]
    with (
        passing_folder() as folder,
        running_service(folder) as url,
        Client(url) as client,
    ):
        wait_ready(client)
        printed = run([sys.executable, "-c", script], ROOT, VLIBRARY_URL=url)
        (vector,) = client.vectors.list().items
        (job,) = client.jobs().items
    report = job.report
    assert report is not None
    # Every item measured, by vectors that had not seen it.
    assert report["items"] == len(list((ROOT / "examples/parts/train").glob("*.png")))
    assert {"m2iv", "zero_shot", "icl", "icl_balanced", "knn_icl", "nearest_copy"} < set(
        report["conditions"]
    )
    assert vector.status == report["status"]
    assert vector.status in {"ready", "unproven"}
    assert vector.advice in report["advice"]
    assert vector.max_dose is not None
    counted, found = printed.strip().splitlines()[-2:]
    right = ast.literal_eval(counted.partition(" of ")[0])
    assert counted.endswith(" of 40")
    assert right["with the vector"] >= right["zero-shot"] + 20
    assert found == vector.ref


def test_the_same_without_a_server(tmp_path: Path) -> None:
    (script,) = blocks("sh")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    printed = run(["sh", "-e", "-c", script], tmp_path)
    assert (tmp_path / "parts.safetensors").exists()
    measured = printed.rpartition("40 items")[2]
    assert "zero-shot" in measured
    assert "M2IV" in measured


@pytest.mark.parametrize("page", ["README.md", "docs/README.md"])
def test_a_page_begins_with_an_install_line_and_its_activation(page: str) -> None:
    first = blocks("console", page)[0]
    assert "-m venv .venv" in first
    assert ". .venv/bin/activate" in first
    assert "pip install" in first
    assert (ROOT / "requirements" / "constraints.txt").exists()


@pytest.mark.parametrize("page", ["README.md", "docs/README.md"])
def test_every_link_of_a_page_leads_to_a_file(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert len(links) >= 5
    for link in links:
        assert (ROOT / page).parent.joinpath(link).exists(), link
