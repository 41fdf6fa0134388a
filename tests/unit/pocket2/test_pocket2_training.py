import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tools.pocket2.building import Plan, Supplies, hang_galleries, learn_to_read, learn_to_see
from tools.pocket2.muon import Muon, orthogonal
from tools.pocket2.pictures.bank import Bank
from tools.pocket2.sight import one_shot_accuracy, pair_loss, taught_classes
from tools.pocket2.stages import Stage, run_stage

PLAN = Plan(
    sight_steps=2,
    sight_pairs=4,
    copies=1,
    groups=80,
    measured_classes=5,
    measured_views=13,
    measured_images=40,
    measured_episodes=1,
    reading_steps=3,
    reading_tokens=300,
    easy_steps=2,
)


def _stage(model: nn.Linear, *, num_steps: int) -> Stage:
    def draw(_: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.standard_normal((32, 6), dtype=np.float32))

    def loss(inputs: Tensor) -> Mapping[str, Tensor]:
        return {"loss": (model(inputs) - inputs[:, :4]).square().mean()}

    return Stage(
        name="line",
        num_steps=num_steps,
        matrix_rate=0.02,
        other_rate=0.01,
        by_adam=frozenset(),
        draw=draw,
        loss=loss,
        validate=lambda: {"bias": float(model.bias.detach().abs().mean())},
        validate_every=4,
        checkpoint_every=2,
    )


def _line() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(6, 4)


def test_a_stopped_stage_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, stopped, resumed = _line(), _line(), _line()
    run_stage(_stage(whole, num_steps=12), whole, folder=tmp_path / "whole", seed=1)

    def interrupt() -> Mapping[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(
            replace(_stage(stopped, num_steps=12), validate=interrupt, validate_every=6),
            stopped,
            folder=tmp_path / "parts",
            seed=1,
        )
    run_stage(_stage(resumed, num_steps=12), resumed, folder=tmp_path / "parts", seed=1)
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_a_stage_logs_losses_and_scores(tmp_path: Path) -> None:
    line = _line()
    run_stage(_stage(line, num_steps=30), line, folder=tmp_path, seed=1)
    entries = [json.loads(text) for text in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(2, 31, 2))
    assert [entry["step"] for entry in entries if "scores" in entry] == [*range(4, 29, 4), 30]
    assert entries[-1]["loss"] < entries[0]["loss"]


def test_steps_become_orthogonal() -> None:
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    for shaped in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonal(shaped))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_muon_goes_where_the_gradient_points() -> None:
    target = torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    weight = nn.Parameter(torch.zeros(6, 9))
    optimizer = Muon([weight], lr=0.3)
    for _ in range(200):
        optimizer.param_groups[0]["lr"] *= 0.98
        optimizer.zero_grad()
        torch.autograd.backward((weight - target).square().sum())
        optimizer.step()
    assert (weight - target).abs().max() < 0.1


def test_views_of_one_class_are_to_be_alike() -> None:
    unit = torch.eye(4)
    assert pair_loss(torch.cat([unit, unit])) < 0.01
    assert pair_loss(torch.cat([unit, unit.roll(1, 0)])) > 5


def test_one_shot_accuracy_knows_right_from_chance() -> None:
    classes = torch.arange(30).repeat(4)
    clear = nn.functional.one_hot(classes).float()
    noise = torch.randn(120, 30, generator=torch.Generator().manual_seed(0))
    assert one_shot_accuracy(clear, classes) == 1.0
    assert one_shot_accuracy(noise, classes) < 0.15


def test_only_taught_classes_have_a_place(bank: Bank) -> None:
    taught = taught_classes(bank)
    assert (taught.place[taught.numbers] == np.arange(len(taught.numbers))).all()
    assert not (taught.place >= 0)[bank.held_out_classes].any()
    assert taught.has_several.any()
    assert not taught.has_several.all()


def test_both_stages_run_and_leave_what_the_next_call_needs(
    supplies: Supplies, tmp_path: Path
) -> None:
    sight = learn_to_see(PLAN, supplies, folder=tmp_path)
    galleries = hang_galleries(PLAN, supplies, sight, folder=tmp_path / "galleries")
    held_out = supplies.bank.held_out_classes
    assert not held_out[galleries["training"].classes].any()
    assert held_out[galleries["new"].classes].all()
    assert held_out[galleries["new_vendor"].classes].all()
    reader = learn_to_read(PLAN, supplies, galleries, folder=tmp_path)
    again = learn_to_read(PLAN, supplies, galleries, folder=tmp_path)
    for mine, other in zip(reader.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)
    entry = json.loads((tmp_path / "reading.jsonl").read_text().splitlines()[-1])
    assert {"new 5 ways@64", "new_vendor 2 ways@0"} <= set(entry["scores"])
