import pytest
import torch
from torch import Tensor

from app.method.training import losses
from app.method.training.losses import TeacherLogProbs
from tests.reference import naive_losses


def random_rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_mimicry_equals_the_equation(temperature: float) -> None:
    student, teacher = random_rows(5, 11, seed=1), random_rows(5, 11, seed=2)
    kept = TeacherLogProbs.from_logits(teacher, temperature=temperature, top_k=0)
    found = losses.mimicry(student, kept, temperature=temperature).mean()
    wanted = naive_losses.mimicry(student.tolist(), teacher.tolist(), temperature=temperature)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("top_k", [1, 4, 10])
def test_abridged_mimicry_equals_the_equation_with_one_outcome_for_the_rest(top_k: int) -> None:
    student, teacher = random_rows(5, 11, seed=3), random_rows(5, 11, seed=4)
    kept = TeacherLogProbs.from_logits(teacher, temperature=1.0, top_k=top_k)
    found = losses.mimicry(student, kept).mean()
    wanted = naive_losses.abridged_mimicry(student.tolist(), teacher.tolist(), top_k=top_k)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_supervision_equals_the_equation() -> None:
    student, targets = random_rows(6, 9, seed=5), [0, 3, 8, 8, 1, 5]
    found = losses.supervision(student, torch.tensor(targets)).mean()
    wanted = naive_losses.supervision(student.tolist(), targets)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.5])
def test_synergy_equals_the_equation(gamma: float) -> None:
    attention, mlp = random_rows(4, 8, seed=6), random_rows(4, 8, seed=7)
    found = losses.synergy(attention, mlp, gamma=gamma)
    wanted = naive_losses.synergy(attention.tolist(), mlp.tolist(), gamma=gamma)
    assert found.item() == pytest.approx(wanted, rel=1e-5)
