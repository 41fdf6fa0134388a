"""Task Vector, Function Vector and MTV against the same rules done one prompt at a time."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from app.method.adaptation.edits import (
    adaptable_sites,
    edit_layer,
    head_counts,
    mean_heads,
    output_projections,
    replace_heads,
)
from app.method.adaptation.problem import (
    Problem,
    draw_contexts,
    encode_parts,
    measure,
    without_context,
)
from app.method.baselines import function_vector, mtv, task_vector
from app.method.steering.greedy import generate_encoded
from tests.fakes.models.problems import alone, assert_near, logits, rewritten, watched


def last(change: Tensor, where: slice = slice(None)) -> Callable[[Tensor], Tensor]:
    def put(hidden: Tensor) -> Tensor:
        hidden[:, -1, where] = change
        return hidden

    return put


def test_mean_states_are_the_mean_of_every_prompt_alone(problem: Problem) -> None:
    asked = draw_contexts(problem, count=50, purpose="task-vector")
    layers = [site.layer for site in adaptable_sites(problem.backbone)]
    one_by_one = torch.stack(
        [
            torch.stack(
                [watched(problem.backbone, alone(problem.backbone, one), m)[0, -1] for m in layers]
            )
            for one in asked
        ]
    )
    assert_near(task_vector.mean_states(problem), one_by_one.mean(0))
    assert all(len(one.context) == 3 for one in asked)
    assert all(one.query.image_id not in {c.image_id for c in one.context} for one in asked)


def test_a_task_vector_replaces_the_last_token_in_prefill_alone(problem: Problem) -> None:
    backbone = problem.backbone
    found = task_vector.fit(problem)
    layer = int(str(found.notes["layer"]))
    state = task_vector.mean_states(problem)[layer]
    module = adaptable_sites(backbone)[layer].layer
    for asked in without_context(problem.items[:3]):
        batch = alone(backbone, asked)
        wanted = rewritten(backbone, batch, module, change=last(state))
        with torch.no_grad(), found.applied(batch):
            assert_near(logits(backbone, batch), wanted)
    parts = encode_parts(problem, without_context(problem.items), with_answers=False)
    for places, batch in parts:
        with found.applied(batch):
            together = generate_encoded(backbone, batch, max_new_tokens=4)
        for place, answer in zip(places, together, strict=True):
            one = alone(backbone, without_context([problem.items[place]])[0])
            with found.applied(one):
                apart = generate_encoded(backbone, one, max_new_tokens=4)[0]
            assert answer == apart


def test_the_layer_is_the_one_validation_likes_best(problem: Problem) -> None:
    states = task_vector.mean_states(problem)
    held = encode_parts(problem, without_context(problem.validation))
    scores = [
        measure(problem, held, edit_layer(problem.backbone, layer, states[layer].expand_as))
        for layer in range(len(states))
    ]
    assert scores[int(str(task_vector.fit(problem).notes["layer"]))] == max(scores)


def test_heads_write_what_their_part_of_the_projection_gives(problem: Problem) -> None:
    means = mean_heads(problem, count=50, purpose="function-vector")
    chosen = [(0, 1), (1, 0)]
    heads, width = head_counts(problem.backbone)
    wanted = torch.zeros(problem.backbone.hidden_size)
    for layer, head in chosen:
        only = torch.zeros(heads, width)
        only[head] = means[layer, head]
        projection = output_projections(problem.backbone)[layer]
        wanted += (projection(only.flatten()) - projection(torch.zeros(heads * width))).detach()
    found = function_vector.sum_of_heads(problem, means, chosen)
    assert_near(found, wanted)


def test_indirect_effects_are_those_of_patching_one_prompt_at_a_time(problem: Problem) -> None:
    backbone = problem.backbone
    means = mean_heads(problem, count=50, purpose="function-vector")
    effects = function_vector.indirect_effects(problem, means)
    layer, head = 1, 0
    width = means.shape[-1]
    asked = [
        function_vector._corrupted(problem, one)
        for one in draw_contexts(problem, count=16, purpose="corrupted")
    ]
    differences = []
    for one in asked:
        batch = alone(backbone, one)
        first = alone(backbone, one, answer=one.query.answer).answer_ids[0][0]
        patched = rewritten(
            backbone,
            batch,
            output_projections(backbone)[layer],
            change=last(means[layer, head], slice(head * width, (head + 1) * width)),
            inputs=True,
        )
        before = logits(backbone, batch)[0, -1].softmax(-1)[first]
        differences.append(patched[0, -1].softmax(-1)[first] - before)
    assert_near(effects[layer, head], torch.stack(differences).mean())


def test_corrupted_demonstrations_keep_pictures_and_swap_answers(problem: Problem) -> None:
    asked = draw_contexts(problem, count=1, purpose="corrupted")[0]
    pairs = [
        replace(item, others=(other.image,))
        for item, other in zip(asked.context, problem.items, strict=False)
        if other.image is not None
    ]
    asked = replace(asked, context=tuple(pairs))
    found = function_vector._corrupted(problem, asked)
    assert [item.pictures for item in found.context] == [item.pictures for item in pairs]
    assert [item.image_id for item in found.context] == [item.image_id for item in asked.context]
    assert sorted(item.answer for item in found.context) == sorted(
        item.answer for item in asked.context
    )


def test_a_function_vector_is_added_at_the_last_token(problem: Problem) -> None:
    backbone = problem.backbone
    found = function_vector.fit(problem)
    assert found.num_parameters == backbone.hidden_size
    module = adaptable_sites(backbone)[int(str(found.notes["layer"]))].layer
    means = mean_heads(problem, count=50, purpose="function-vector")
    effects = function_vector.indirect_effects(problem, means)
    heads = effects.shape[1]
    order = effects.flatten().argsort(descending=True)[:10].tolist()
    vector = function_vector.sum_of_heads(problem, means, [divmod(o, heads) for o in order])
    batch = alone(backbone, without_context(problem.items)[0])

    def add(hidden: Tensor) -> Tensor:
        hidden[:, -1] += vector
        return hidden

    wanted = rewritten(backbone, batch, module, change=add)
    with torch.no_grad(), found.applied(batch):
        assert_near(logits(backbone, batch), wanted)


def test_mtv_replaces_the_slices_of_the_chosen_heads(problem: Problem) -> None:
    backbone = problem.backbone
    means = mean_heads(problem, count=100, purpose="mtv")
    heads = torch.zeros(means.shape[:2], dtype=torch.bool)
    heads[1, 1] = True
    width = means.shape[-1]
    batch = alone(backbone, without_context(problem.items)[2])
    wanted = rewritten(
        backbone,
        batch,
        output_projections(backbone)[1],
        change=last(means[1, 1], slice(width, 2 * width)),
        inputs=True,
    )
    with torch.no_grad(), replace_heads(problem.backbone, means, heads)(batch):
        assert_near(logits(backbone, batch), wanted)


def test_reinforce_finds_the_head_that_is_paid_for(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = replace(problem, max_steps=60)
    means = mean_heads(problem, count=100, purpose="mtv")

    def reward(*_given: object, heads: Tensor, **_others: object) -> float:
        return float(heads[0, 1]) - float(heads[1, 0])

    monkeypatch.setattr(mtv, "_reward", reward)
    policy = mtv.choose_policy(problem, means)
    assert policy[0, 1] > 1 > -1 > policy[1, 0]


def test_a_fitted_mtv_counts_what_it_keeps(problem: Problem) -> None:
    found = mtv.fit(problem)
    width = mean_heads(problem, count=100, purpose="mtv").shape[-1]
    assert found.num_parameters == int(str(found.notes["heads"])) * width
