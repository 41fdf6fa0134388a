"""ICV, I2CL and LIVE against their formulas, number by number."""

import math

import numpy as np
import torch
from torch import Tensor

from app.method.adaptation.edits import adaptable_sites
from app.method.adaptation.problem import Problem, without_context
from app.method.baselines import i2cl, icv, live
from tests.fakes.models.problems import alone, assert_near, logits, watched


def naive_turn(hidden: list[float], direction: list[float], strength: float) -> list[float]:
    def length(values: list[float]) -> float:
        return math.sqrt(sum(value * value for value in values))

    size, unit = length(hidden), [value / length(direction) for value in direction]
    cosine = sum(a * b for a, b in zip(hidden, unit, strict=True)) / size
    gate = 1 + max(0.0, -cosine)
    turned = [a / size + strength * gate * b for a, b in zip(hidden, unit, strict=True)]
    return [value / length(turned) * size for value in turned]


def test_icv_turns_each_token_and_keeps_its_length() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 3, 5, generator=generator)
    direction = torch.randn(5, generator=generator)
    found = icv.steer(direction, 0.3)(hidden)
    wanted = [
        [naive_turn(token.tolist(), direction.tolist(), 0.3) for token in row] for row in hidden
    ]
    assert_near(found, torch.tensor(wanted))
    assert_near(found.norm(dim=-1), hidden.norm(dim=-1))


def test_the_principal_direction_is_that_of_the_covariance() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6)) * np.array([5, 1, 1, 1, 1, 1]) + np.array([2, 1, 0, 0, 0, 0])
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    main = vectors[:, values.argmax()]
    mean = rows.mean(0)
    wanted = mean + main * np.sign(main @ mean)
    found = icv.principal_direction(torch.tensor(rows))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)
    one = torch.tensor([[1.0, 2.0]])
    assert icv.principal_direction(one).tolist() == [1.0, 2.0]


def test_icv_reads_states_with_and_without_the_answer(problem: Problem) -> None:
    backbone = problem.backbone
    layers = [site.layer for site in adaptable_sites(backbone)]
    rows = []
    for item in problem.items:
        (asked,) = without_context([item])
        ends = [
            torch.stack([watched(backbone, batch, layer)[0, -1] for layer in layers])
            for batch in (alone(backbone, asked, answer=item.answer), alone(backbone, asked))
        ]
        rows.append((ends[0] - ends[1]).flatten())
    order = np.random.default_rng(0).permutation(len(rows))
    wanted = icv.principal_direction(torch.stack([rows[int(place)] for place in order]))
    found = icv.main_direction(problem)
    assert_near(found.flatten(), wanted, tolerance=1e-3)


def test_icv_says_what_it_is(problem: Problem) -> None:
    assert icv.fit(problem).kind == "direction"


def test_i2cl_reads_each_demonstration_alone_to_its_end(problem: Problem) -> None:
    backbone = problem.backbone
    site = adaptable_sites(backbone)[1]
    ends = [
        watched(
            backbone, alone(backbone, without_context([item])[0], answer=item.answer), site.mlp
        )[0, -1]
        for item in problem.items
    ]
    found = i2cl.context_vectors(problem)[1, 1]
    assert_near(found, torch.stack(ends).mean(0))


def test_i2cl_mixes_by_two_scalars_and_adds_noise_only_while_it_learns() -> None:
    hidden, context = torch.ones(1, 2, 3), torch.tensor([1.0, 2.0, 3.0])
    scalars = (torch.tensor(0.5), torch.tensor(0.1))
    generator = torch.Generator().manual_seed(0)
    edit = i2cl.mix(context, scalars, generator=generator)
    with torch.no_grad():
        still = edit(hidden)
    assert_near(still[0, 0], torch.tensor([0.6, 0.7, 0.8]))
    moved = edit(hidden)
    assert 0 < float((moved - still).abs().max()) < 0.01


def test_i2cl_keeps_contexts_and_four_scalars_a_layer(problem: Problem) -> None:
    found = i2cl.fit(problem)
    backbone = problem.backbone
    layers = backbone.num_layers
    assert found.num_parameters == 2 * layers * backbone.hidden_size + 4 * layers


def test_live_adds_a_vector_and_keeps_every_length() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 3, 5, generator=generator)
    vector = torch.randn(5, generator=generator)
    found = live.shift(vector)(hidden)
    for row, column in ((0, 0), (1, 2)):
        token = hidden[row, column]
        moved = token + vector
        wanted = moved * (token.norm() / moved.norm())
        assert_near(found[row, column], wanted)


def test_live_follows_the_teacher_of_the_very_item(problem: Problem) -> None:
    teacher, rows = live._teach(problem)
    assert sorted(rows.values()) == list(range(len(problem.items)))
    counts = [
        len(alone(problem.backbone, without_context([item])[0], answer=item.answer).answer_ids[0])
        for item in problem.items
    ]
    found = [len(teacher.rows([rows[place]]).log_probs) for place in range(len(problem.items))]
    assert found == counts


def test_live_learns_and_leaves_the_backbone_as_it_was(problem: Problem) -> None:
    backbone = problem.backbone
    batch = alone(backbone, without_context(problem.items)[0])
    before = logits(backbone, batch)
    found = live.fit(problem)
    assert found.kind == "normed-shift"
    assert found.num_parameters == backbone.num_layers * (backbone.hidden_size + 1)
    with torch.no_grad(), found.applied(batch):
        changed: Tensor = logits(backbone, batch)
    assert int(str(found.notes["steps"])) == 0 or not torch.equal(changed, before)
    assert torch.equal(logits(backbone, batch), before)
