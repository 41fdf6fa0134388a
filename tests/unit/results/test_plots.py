from pathlib import Path
from typing import Any

import pytest

from tests.unit.results.test_page import report
from tools.results.plots import draw


def with_norms(**shares: list[int]) -> dict[str, Any]:
    made = report(**shares)
    made["items"]["100"]["methods"]["m2iv"]["norms"] = {"attention": [1.0, 2.0], "mlp": [3.0, 4.0]}
    return made


def test_only_what_was_measured_is_drawn(tmp_path: Path) -> None:
    assert draw(report(zero_shot=[1, 2], m2iv=[60, 60]), tmp_path / "new") == ["cost.svg"]
    drawn = draw(
        with_norms(zero_shot=[1, 2], icl_4=[30, 30], icl_16=[40, 20], m2iv=[60, 60]), tmp_path
    )
    assert drawn == ["cost.svg", "shots.svg", "norms.svg"]


def test_no_costs_are_drawn_of_methods_that_cost_the_same(tmp_path: Path) -> None:
    made = report(**{"m2iv": [60, 60], "m2iv:shots=4": [50, 50], "lora": [70, 70]})
    methods = made["items"]["100"]["methods"]
    for name in ("m2iv", "m2iv:shots=4"):
        methods[name]["kind"] = "shift"
    assert "cost.svg" in draw(made, tmp_path)
    del methods["lora"]
    assert draw(made, tmp_path) == []


def test_no_more_demonstrations_are_drawn_than_there_were_items(tmp_path: Path) -> None:
    shares = {"icl_16": [40, 20], "icl_100": [50, 40], "icl_128": [50, 40], "m2iv": [60, 60]}
    assert "shots.svg" not in draw(report(**shares), tmp_path)
    assert "shots.svg" in draw(report(zero_shot=[1, 2], **shares), tmp_path)
    assert ">128<" not in (tmp_path / "shots.svg").read_text()


def test_several_sizes_are_drawn_against_each_other(tmp_path: Path) -> None:
    made = report(zero_shot=[1, 2], m2iv=[60, 60])
    made["items"]["32"] = made["items"]["100"]
    assert "items.svg" in draw(made, tmp_path)


@pytest.mark.parametrize("name", ["cost", "norms"])
def test_equal_results_give_equal_files(tmp_path: Path, name: str) -> None:
    made = with_norms(zero_shot=[1, 2], m2iv=[60, 60])
    for folder in ("one", "other"):
        draw(made, tmp_path / folder)
    texts = [(tmp_path / folder / f"{name}.svg").read_text() for folder in ("one", "other")]
    assert texts[0] == texts[1]
    assert ">m2iv" in texts[0] or name == "norms"
