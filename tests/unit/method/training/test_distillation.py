from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from app.core.errors import (
    InvalidDatasetError,
)
from app.core.vectors.card import read_card
from app.core.vectors.file import decode_vector_file
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.steering.sites import find_sites
from app.method.steering.vectors import TENSOR_NAMES
from app.method.training.distillation import TrainingResult, train
from app.method.training.progress import TrainingProgress
from app.method.training.selection.choices import weight_candidates
from app.worker.training.results import card_of, encode_result, report_of
from tests.fakes.models.backbones import tiny_backbone
from tests.fakes.models.training_runs import CONFIG, EXAMPLES, same_vectors


def test_training_moves_the_answers_and_leaves_the_backbone_alone(learner: Backbone) -> None:
    before = [parameter.clone() for parameter in learner.model.parameters()]
    config = CONFIG.changed(epochs=12, vector_learning_rate=0.2, mimicry_weight=0.0)
    found = train(learner, EXAMPLES, config)
    assert found.losses[-1]["supervision"] < 0.5 * found.losses[0]["supervision"]
    for parameter, kept in zip(learner.model.parameters(), before, strict=True):
        assert torch.equal(parameter, kept)
        assert parameter.grad is None
    assert not learner.model._forward_hooks
    assert not learner.model.training


def test_the_student_comes_nearer_to_its_teacher(learner: Backbone) -> None:
    config = CONFIG.changed(epochs=12, vector_learning_rate=0.02, supervision_weight=0.0)
    losses = [step["mimicry"] for step in train(learner, EXAMPLES, config).losses]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_a_teacher_that_is_never_right_is_not_followed(learner: Backbone) -> None:
    config = CONFIG.changed(epochs=1, mimicry_of="right")
    found = train(learner, EXAMPLES, config)
    assert found.teacher_accuracy == 0.0
    assert [step["mimicry"] for step in found.losses] == [0.0] * len(found.losses)
    alone = train(learner, EXAMPLES, config.changed(mimicry_weight=0.0))
    assert same_vectors(found, alone)


def test_equal_runs_give_equal_vectors_and_another_seed_gives_others(
    learner: Backbone, result: TrainingResult
) -> None:
    state = torch.get_rng_state()
    assert same_vectors(train(learner, EXAMPLES, CONFIG), result)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same_vectors(train(learner, EXAMPLES, CONFIG.changed(seed=1)), result)


def test_vectors_of_the_last_step_are_said_to_be_of_it(learner: Backbone) -> None:
    # So many that the best measurement is not the last.
    config = CONFIG.changed(vector_learning_rate=0.5, epochs=12)
    best = train(learner, EXAMPLES, config)
    assert best.recipe["steps"] < len(best.losses)
    last = train(learner, EXAMPLES, config.changed(keep="last"))
    assert last.recipe["steps"] == len(last.losses)


def test_progress_covers_every_phase(learner: Backbone) -> None:
    reports: list[TrainingProgress] = []
    found = train(learner, EXAMPLES, CONFIG, on_step=reports.append)
    phases = list(dict.fromkeys(report.phase for report in reports))
    assert phases == ["features", "teacher", "student", "evaluate"]
    for report in reports:
        assert 0 < report.step <= report.num_steps
        assert report.items_per_second > 0
    student = [report for report in reports if report.phase == "student"]
    assert [report.losses for report in student] == found.losses
    assert student[0].eta_seconds is not None
    assert student[-1].eta_seconds == 0.0
    assert student[-1].held_out_accuracy is not None
    assert student[0].learning_rate == pytest.approx(CONFIG.vector_learning_rate)


def test_the_plan_tells_roles_and_draws(result: TrainingResult) -> None:
    plan = result.plan
    roles = [
        {EXAMPLES[item].image_id for item in role}
        for role in (plan.queries, plan.support, plan.measured)
    ]
    assert all(roles)
    assert not roles[0] & roles[1]
    assert not roles[2] & (roles[0] | roles[1])
    assert len(plan.episodes) == 2 * plan.num_queries
    first, second = plan.episodes[0], plan.episodes[plan.num_queries]
    assert first.query is second.query is EXAMPLES[plan.queries[0]]
    shown = [sorted(item.id for item in episode.context) for episode in (first, second)]
    assert shown[0] == shown[1]
    assert {*shown[0]} <= {EXAMPLES[item].id for item in plan.support}
    assert result.num_labels == len({*plan.queries, *plan.support})


def test_the_result_has_a_key_and_a_fair_report(result: TrainingResult) -> None:
    assert result.key is not None
    assert 0 < result.key.image_width < result.key.exemplars.shape[1]
    assert -1.0 <= result.key.threshold <= 1.0
    assert 0 < result.key.text_threshold <= 1.0
    assert result.held_out is not None
    assert result.held_out.items == len(result.plan.measured)
    assert 0.0 <= result.teacher_accuracy <= 1.0


def test_items_of_text_alone_are_learnt_from_and_no_part_of_the_key(learner: Backbone) -> None:
    mixed = [
        replace(example, image=None) if place % 3 == 2 else example
        for place, example in enumerate(EXAMPLES)
    ]
    key = train(learner, mixed, CONFIG.changed(epochs=1)).key
    assert key is not None
    lengths = np.linalg.norm(key.exemplars[:, : key.image_width], axis=1)
    assert len(lengths) == sum(example.image is not None for example in mixed)
    np.testing.assert_allclose(lengths, np.sqrt(0.5), atol=1e-5)


def test_a_task_of_texts_alone_has_no_key(learner: Backbone) -> None:
    texts = [replace(example, image=None) for example in EXAMPLES]
    config = CONFIG.changed(epochs=1, shots=64)
    result = train(learner, texts, config)
    assert result.key is None
    card = card_of(learner, result, config=config, dataset="texts")
    content = encode_result(learner, result, card=card)
    assert read_card(decode_vector_file(content)[1]) == card
    assert card.key is None
    report = report_of(result, config)
    assert report["is_found_by_auto"] is False
    # As many as there are, and said so.
    assert report["demonstrations"] == {"wanted": 64, "found": result.shots}
    assert 0 < result.shots < len(texts)


def test_without_held_out_items_the_last_vectors_are_kept(learner: Backbone) -> None:
    found = train(learner, EXAMPLES, CONFIG.changed(held_out_fraction=0.0, epochs=1))
    assert found.held_out is None
    assert found.verdict.status == "unproven"
    assert len(found.losses) == 2


def test_the_search_never_adds_a_loss_that_was_switched_off() -> None:
    found = weight_candidates(CONFIG.changed(mimicry_weight=0.0))
    assert [one.mimicry_weight for one in found] == [0.0] * len(found)
    found = weight_candidates(CONFIG.changed(supervision_weight=0.0, synergy_weight=0.0))
    assert [one.supervision_weight for one in found] == [0.0]


def test_where_there_is_one_way_to_weigh_the_losses_none_is_searched(learner: Backbone) -> None:
    phases: list[str] = []
    config = CONFIG.changed(trial_steps=2, mimicry_weight=0.0, synergy_weight=0.0, epochs=1)
    train(learner, EXAMPLES, config, on_step=lambda progress: phases.append(progress.phase))
    assert "student" in phases
    assert "search" not in phases


@pytest.mark.parametrize(("branches", "silent"), [("attention", "mlp"), ("mlp", "attention")])
def test_one_branch_alone_leaves_the_other_at_zero(
    branches: Literal["attention", "mlp"], silent: str, learner: Backbone
) -> None:
    found = train(learner, EXAMPLES, CONFIG.changed(epochs=1, branches=branches))
    assert not any(found.vectors.to_tensors().norms()[silent])
    assert all(found.vectors.to_tensors().norms()[branches])
    assert found.losses[0]["synergy"] == 0.0


def test_smaller_passes_give_the_same_steps(learner: Backbone, result: TrainingResult) -> None:
    found = train(learner, EXAMPLES, CONFIG.changed(token_budget=70))
    for small, whole in zip(found.losses, result.losses, strict=True):
        assert small == pytest.approx(whole, rel=1e-3, abs=1e-4)


def test_recomputing_activations_gives_the_same_vectors(learner: Backbone) -> None:
    plain = train(learner, EXAMPLES, CONFIG.changed(epochs=1))
    saving = train(learner, EXAMPLES, CONFIG.changed(epochs=1, gradient_checkpointing=True))
    for name in TENSOR_NAMES:
        torch.testing.assert_close(getattr(saving.vectors, name), getattr(plain.vectors, name))
    assert not learner.model.training


def test_recomputing_activations_leaves_nothing_out_at_random() -> None:
    backbone = tiny_backbone()
    for module in backbone.model.modules():
        if hasattr(module, "attention_dropout"):
            vars(module)["attention_dropout"] = 0.5
    passes: list[object] = []
    find_sites(backbone.model)[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    plain = train(backbone, EXAMPLES, CONFIG.changed(epochs=1))
    num_plain = len(passes)
    saving = train(backbone, EXAMPLES, CONFIG.changed(epochs=1, gradient_checkpointing=True))
    assert len(passes) - num_plain == num_plain + len(saving.losses)
    for name in TENSOR_NAMES:
        torch.testing.assert_close(getattr(saving.vectors, name), getattr(plain.vectors, name))
    assert not any(module.training for module in backbone.model.modules())


def test_the_synergy_gradient_cannot_drown_the_others(learner: Backbone) -> None:
    def moved(**changes: float) -> float:
        config = CONFIG.changed(epochs=6, **changes)
        losses = train(learner, EXAMPLES, config).losses
        return losses[0]["supervision"] - losses[-1]["supervision"]

    alone = moved(synergy_weight=0.0)
    assert moved() > 0.7 * alone > 0


@pytest.mark.parametrize("examples", [[], EXAMPLES[:2]], ids=["no items", "one picture"])
def test_too_few_items_are_refused(examples: list[Example], learner: Backbone) -> None:
    with pytest.raises(InvalidDatasetError, match="found"):
        train(learner, examples, CONFIG)
