import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from app.core.errors import InvalidDatasetError, InvalidInputError, NotFoundError
from app.core.identifiers import sha256_hex
from app.method.adaptation.problem import Problem, measure
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.baselines import icv, word_table
from app.method.evaluation.conditions import zero_shot
from app.method.evaluation.report import evaluate
from app.method.experiments import cells as cells_module
from app.method.experiments import methods as methods_module
from app.method.experiments.cells import CellResult, append_cell, measure_cell, read_cells
from app.method.experiments.methods import SETS, expand
from app.method.experiments.runs import PROTOCOL, SuitePlan, cells_of, run_file, run_suite
from app.method.experiments.suite import Suite, load_suite
from app.method.experiments.trial import Trial
from app.method.training.configuration import TrainingConfig
from tests.fakes.models.backbones import tiny_backbone
from tests.fakes.suites import tiny_suite

CHEAP = ("zero_shot", "icl_2", "nearest_copy", "word_table")
PLAN = SuitePlan(methods=CHEAP, items=(8,), seeds=2, questions=6, validation=4, shots=(1, 2))


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return load_suite(str(tiny_suite(tmp_path / "suite", "one", "two")))


def trial_of(backbone: Backbone, suite: Suite) -> Trial:
    task = suite.tasks[0]
    problem = Problem(
        items=task.load("train", limit=8, seed=1),
        validation=task.load("validation", limit=4),
        features=FeatureCache(backbone),
    )
    return Trial(problem=problem, task=task, test=task.load("test", limit=6), shots=(1, 2))


def test_an_interrupted_run_goes_on_and_measures_nothing_twice(
    backbone: Backbone, suite: Suite, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.jsonl"
    whole = list(run_suite(backbone, suite, PLAN, file=tmp_path / "other.jsonl"))
    first = run_suite(backbone, suite, PLAN, file=file)
    begun = list(islice(first, 5))
    measured: list[str] = []
    measure_one = cells_module.measure_cell

    def counting(trial: Trial, method: str) -> CellResult:
        measured.append(method)
        return measure_one(trial, method)

    monkeypatch.setattr("app.method.experiments.runs.measure_cell", counting)
    told: list[tuple[int, int]] = []
    done = list(
        run_suite(
            backbone,
            suite,
            PLAN,
            file=file,
            on_cell=lambda n, total, _: told.append((n, total)),
        )
    )
    assert len(measured) == len(done) - len(begun)
    assert told[-1] == (len(done), len(done)) == (14, 14)
    assert [cell.scores for cell in done] == [cell.scores for cell in whole]


def test_a_method_without_room_is_told_of_and_tried_again(
    backbone: Backbone, suite: Suite, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, methods=("nearest_copy", "icl_2"), seeds=1, tasks=("one",))

    def find_none(_name: str) -> Callable[[Trial], None]:
        return no_room

    def no_room(_trial: Trial) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def refusals() -> list[str | None]:
        file = tmp_path / "run.jsonl"
        return [cell.refused for cell in run_suite(backbone, suite, plan, file=file)]

    with monkeypatch.context() as patch:
        patch.setattr(cells_module, "find_method", find_none)
        assert refusals() == ["The accelerator has no room for this method"] * 2
    assert refusals() == [None, None]


def test_cells_keep_the_items_that_were_asked_for_and_zero_shot_has_one(suite: Suite) -> None:
    keys = cells_of(replace(PLAN, items=(8, 12)), suite.tasks)
    assert [key.items for key in keys if key.method == "zero_shot"] == [0, 0]
    assert sum(key.method == "icl_2" for key in keys) == 2 * 2 * 2
    assert len({key.key for key in keys}) == len(keys)


def test_runs_that_cannot_be_compared_lie_apart(
    backbone: Backbone, suite: Suite, tmp_path: Path
) -> None:
    def place(plan: SuitePlan) -> Path:
        return run_file(tmp_path, suite=suite, backbone=backbone, plan=plan)

    assert place(PLAN) == place(replace(PLAN, methods=("m2iv",), seeds=1, items=(100,)))
    assert place(PLAN) != place(replace(PLAN, questions=5))
    assert place(PLAN) != place(replace(PLAN, shots=(1,)))


def test_more_items_than_a_task_has_are_refused_before_any_cell(
    backbone: Backbone, suite: Suite, tmp_path: Path
) -> None:
    plan = replace(PLAN, items=(8, 17))
    with pytest.raises(InvalidInputError, match=r"wanted 17 .* one \(16\), two \(16\)"):
        next(run_suite(backbone, suite, plan, file=tmp_path / "run.jsonl"))


def test_more_items_are_the_fewer_ones_and_others(suite: Suite) -> None:
    task = suite.tasks[0]
    few, many = (task.load("train", limit=limit, seed=2) for limit in (4, 9))
    assert [item.id for item in many[:4]] == [item.id for item in few]
    assert [item.id for item in task.load("train", limit=4, seed=3)] != [item.id for item in few]


def test_the_best_shots_are_those_that_validation_likes_best(
    backbone: Backbone, suite: Suite
) -> None:
    trial = trial_of(backbone, suite)
    kind, shots = trial.best_in_context(2)
    scores = {
        (k, n): trial.validate(k, n) for k in ("icl", "icl_balanced", "knn_icl") for n in (1, 2)
    }
    assert scores[kind, shots] == max(score for score in scores.values() if score is not None)
    assert trial.best_in_context(1)[1] == 1


def test_a_prompt_that_is_too_long_is_refused_and_does_not_end_the_run(
    backbone: Backbone, suite: Suite
) -> None:
    trial = trial_of(backbone, suite)
    long = [replace(item, question="word " * 900) for item in trial.problem.items]
    problem = replace(trial.problem, items=long)
    found = measure_cell(replace(trial, problem=problem), "icl_4")
    assert found.scores == ()
    assert found.refused is not None
    assert "too long" in found.refused


def test_the_word_table_sees_zero_shot_answers_only(backbone: Backbone, suite: Suite) -> None:
    trial = trial_of(backbone, suite)

    def said(items: Sequence[Example]) -> list[str]:
        report = evaluate(backbone, items, condition=zero_shot(), max_new_tokens=4)
        return list(report.texts)

    items = trial.problem.items
    table = word_table.fit(said(items), [item.answer for item in items])
    wanted = [
        float(word_table.look_up(table, text).casefold() == item.answer)
        for text, item in zip(said(trial.test), trial.test, strict=True)
    ]
    found = measure_cell(trial, "word_table")
    assert (list(found.scores), found.labels) == (wanted, len(items))


@pytest.mark.parametrize("method", ["icv", "m2iv:max_steps=4:trial_steps=0:shots=2"])
def test_a_fitted_method_is_measured_with_its_costs(
    backbone: Backbone, suite: Suite, *, tmp_path: Path, method: str
) -> None:
    trial = trial_of(backbone, suite)
    assert measure(trial.problem, []) is not None
    found = measure_cell(trial, method)
    assert len(found.scores) == 6
    assert found.parameters > 0
    assert found.train_seconds > 0
    assert found.kind in {"shift", "direction"}
    file = tmp_path / "cells.jsonl"
    append_cell(found, file)
    assert json.loads(json.dumps(read_cells(file)[found.key].notes)) == found.notes


def test_a_cell_that_was_not_written_to_its_end_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "run" / "cells.jsonl"
    one, two, three = (
        CellResult(task=name, method="icv", items=8, seed=0, scores=(1.0, 0.5))
        for name in ("one", "two", "three")
    )
    assert read_cells(file) == {}
    append_cell(one, file)
    append_cell(two, file)
    file.write_bytes(file.read_bytes()[:-9])
    assert read_cells(file) == {one.key: one}
    append_cell(three, file)
    assert read_cells(file) == {one.key: one, three.key: three}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("magic", "found magic"),
        ("icl_many", "found icl_many"),
        ("m2iv:shots", "NAME=VALUE"),
        ("m2iv:speed=9", "Unknown training settings: speed"),
        ("m2iv:shots=0", "shots is out of range"),
        ("m2iv:shots=few", "shots is out of range"),
        ("m2iv:seed=4", "Unknown settings of m2iv in a suite: found seed"),
        ("supervision_only:instruction=Look.", "Unknown settings of supervision_only"),
        ("lora:shots=4", "Unknown settings of lora: wanted augmented_views, max_steps, vect"),
        ("lora:augmented_views=-1", "augmented_views is out of range"),
        ("icv:augmented_views=2", "found icv:augmented_views=2"),
    ],
)
def test_an_unknown_method_or_setting_is_refused_at_once(name: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SuitePlan(methods=(name,))


def test_every_set_is_of_known_methods_and_mixes_with_names() -> None:
    for name, methods in SETS.items():
        assert expand(name) == methods
        SuitePlan(methods=methods)
    assert expand("lora,many_shot,m2iv")[0] == "lora"
    assert len(expand("many_shot,m2iv,icl_16")) == len(SETS["many_shot"])


def test_ablations_change_one_setting_each_and_really_change_it() -> None:
    usual = TrainingConfig().model_dump()
    for name in SETS["ablations"]:
        head, *settings = name.split(":")
        changed = methods_module._config(head, settings).model_dump()
        different = {key for key, value in changed.items() if usual[key] != value}
        if head == "m2iv":
            assert different == {setting.split("=")[0] for setting in settings}
            # With a trial most of them would end as one training: that on the labels alone.
            assert len(different - {"trial_steps"}) <= 1
            assert not different or changed["trial_steps"] == 0


def test_settings_of_every_type_are_read() -> None:
    words = ["epochs=3", "gradient_checkpointing=true", "branches=mlp", "mimicry_weight=0"]
    found = methods_module._config("m2iv", words)
    assert (found.epochs, found.gradient_checkpointing) == (3, True)
    assert (found.branches, found.mimicry_weight) == ("mlp", 0.0)
    words = ["max_steps=300", "vector_learning_rate=0.03"]
    assert methods_module._fit_settings("lora", words) == {"max_steps": 300, "rate": 0.03}
    assert methods_module._fit_settings("lora", []) == {}


def test_another_recipe_is_another_protocol() -> None:
    """Cells of two recipes have one name: who changes a default raises `PROTOCOL` as well."""
    fields = Problem.__dataclass_fields__
    recipe = {
        "m2iv": TrainingConfig().model_dump(),
        "steps": fields["max_steps"].default,
        "demonstrations": [SuitePlan(methods=()).shots, fields["shots"].default],
        "strengths": icv.STRENGTHS,
        "rates": {
            name: import_module(f"app.method.baselines.{name}")._RATE
            for name in methods_module.BY_GRADIENTS
        },
    }
    digest = sha256_hex(json.dumps(recipe, sort_keys=True).encode())
    assert (PROTOCOL, digest[:16]) == (2, "522e3a06cf8d014c")


def test_cells_of_another_precision_lie_elsewhere(
    backbone: Backbone, suite: Suite, tmp_path: Path
) -> None:
    half = tiny_backbone()
    nn.Module.to(half.model, torch.bfloat16)
    files = {run_file(tmp_path, suite=suite, backbone=one, plan=PLAN) for one in (backbone, half)}
    assert len(files) == 2


def test_a_file_that_the_manifest_does_not_tell_of_is_refused(tmp_path: Path) -> None:
    folder = tiny_suite(tmp_path / "suite")
    with (folder / "squares.parquet").open("ab") as file:
        file.write(b" ")
    with pytest.raises(InvalidDatasetError, match="squares is not what the suite tells of"):
        load_suite(str(folder))
    with pytest.raises(NotFoundError, match="make suite"):
        load_suite("nowhere")


def test_a_task_that_the_suite_lacks_is_refused(suite: Suite) -> None:
    with pytest.raises(NotFoundError, match="wanted one, two, found three"):
        suite.only(["three"])
