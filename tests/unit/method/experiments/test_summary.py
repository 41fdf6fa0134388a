import numpy as np
import pytest

from app.core.errors import InvalidInputError
from app.method.experiments.cells import CellResult
from app.method.experiments.summary import summarize


def cell(task: str, method: str, scores: list[float], *, seed: int = 0) -> CellResult:
    items = 0 if method == "zero_shot" else 100
    return CellResult(task=task, method=method, items=items, seed=seed, scores=tuple(scores))


def bits(share: float, *, count: int = 200, seed: int = 0) -> list[float]:
    return [float(bit) for bit in np.random.default_rng(seed).random(count) < share]


def test_averages_are_over_tasks_whatever_their_sizes() -> None:
    results = [
        cell("small", "icl_16", [1.0, 0.0]),
        cell("large", "icl_16", [1.0] * 30),
        cell("small", "zero_shot", [0.0, 0.0]),
        cell("large", "zero_shot", [0.0] * 30),
    ]
    table = summarize(results)["100"]
    assert table["average"] == {"icl_16": 0.75, "zero_shot": 0.0}
    assert table["methods"]["icl_16"]["mean"] == 0.75


def test_gains_are_paired_and_so_surer_than_the_two_alone() -> None:
    base = bits(0.5)
    better = [max(a, b) for a, b in zip(base, bits(0.1, seed=1), strict=True)]
    results = [
        cell("a", name, scores, seed=seed)
        for name, scores in (("m2iv", better), ("icl_16", base))
        for seed in range(3)
    ]
    table = summarize(results)["100"]
    gain = table["gains"]["icl_16"]
    alone = table["methods"]["m2iv"]
    assert gain["mean"] == pytest.approx(np.mean(better) - np.mean(base), abs=1e-3)
    assert gain["high"] - gain["low"] < alone["high"] - alone["low"]
    assert gain["low"] > 0


def test_seeds_that_differ_widen_the_interval() -> None:
    same = [cell("a", "lora", [1.0, 0.0] * 50, seed=seed) for seed in range(3)]
    apart = [cell("a", "lora", [float(seed == 0)] * 100, seed=seed) for seed in range(3)]
    rows = [summarize(found)["100"]["methods"]["lora"] for found in (same, apart)]
    widths = [row["high"] - row["low"] for row in rows]
    assert widths[1] > 3 * widths[0]


def test_draws_are_told_in_their_order_whenever_they_were_measured() -> None:
    results = [cell("a", "lora", [share], seed=seed) for seed, share in ((1, 0.0), (0, 1.0))]
    assert summarize(results)["100"]["tasks"]["a"]["lora"]["each"] == [1.0, 0.0]


def test_a_method_below_zero_shot_by_more_than_chance_is_collapsed() -> None:
    results = [
        cell("a", "zero_shot", bits(0.7)),
        cell("a", "icv", bits(0.3, seed=1)),
        cell("a", "mtv", bits(0.68, seed=2)),
    ]
    table = summarize(results)["100"]
    assert table["methods"]["icv"]["collapsed"] == ["a"]
    assert table["methods"]["mtv"]["collapsed"] == []
    assert table["tasks"]["a"]["icv"]["collapsed"]


def test_what_a_task_refused_has_no_average_and_says_why() -> None:
    refused = CellResult(task="a", method="icl_64", items=100, seed=0, refused="too long")
    results = [
        cell("a", "icl_16", [1.0]),
        refused,
        cell("b", "icl_64", [1.0]),
        cell("b", "icl_16", [0.0]),
    ]
    table = summarize(results)["100"]
    assert "icl_64" not in table["average"]
    assert table["tasks"]["a"]["icl_64"] == {"refused": "too long"}


def test_a_task_that_refuses_every_method_is_no_reason_for_an_average_without_it() -> None:
    refused = CellResult(task="a", method="icl_64", items=100, seed=0, refused="too long")
    table = summarize([refused, cell("b", "icl_64", [1.0])])["100"]
    assert table["average"] == {}
    assert table["tasks"]["a"] == {"icl_64": {"refused": "too long"}}


def test_figures_are_rounded_once_where_they_are_shown() -> None:
    shares = [0.2, 0.3, 0.19441]
    results = [cell(name, "lora", [share]) for name, share in zip("abc", shares, strict=True)]
    table = summarize(results)["100"]
    # Four digits would be 0.2315, which is shown as 23.2 %.
    assert f"{table['methods']['lora']['mean']:.1%}" == "23.1%"


def test_the_share_of_mimicry_is_what_supervision_does_not_reach() -> None:
    results = [
        cell("a", "zero_shot", [0.0] * 10),
        cell("a", "supervision_only", [1.0] * 6 + [0.0] * 4),
        cell("a", "m2iv", [1.0] * 8 + [0.0] * 2),
    ]
    assert summarize(results)["100"]["mimicry_share"] == pytest.approx(0.25)
    with pytest.raises(InvalidInputError, match="found none"):
        summarize([])
