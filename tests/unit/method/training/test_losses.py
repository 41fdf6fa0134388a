import pytest
import torch
from torch import Tensor

from app.method.training.losses import TeacherLogProbs, mimicry, supervision, synergy


def random_logits(rows: int, size: int, *, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn((rows, size), generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("top_k", [0, 3])
def test_equal_logits_have_no_divergence(top_k: int) -> None:
    logits = random_logits(4, 9, seed=0)
    teacher = TeacherLogProbs.from_logits(logits, temperature=2.0, top_k=top_k)
    assert mimicry(logits, teacher, temperature=2.0).mean().item() == pytest.approx(0.0, abs=1e-6)


def test_an_abridged_teacher_bounds_the_divergence_from_below() -> None:
    student, logits = random_logits(4, 50, seed=1), random_logits(4, 50, seed=2)
    found = [
        mimicry(student, TeacherLogProbs.from_logits(logits, temperature=1.0, top_k=k))
        .mean()
        .item()
        for k in (1, 5, 25, 49, 0)
    ]
    assert found == sorted(found)
    assert found[0] > 0


@pytest.mark.parametrize("top_k", [0, 4])
def test_gradients_of_the_answer_losses_are_right(top_k: int) -> None:
    student = random_logits(3, 7, seed=3, dtype=torch.float64).requires_grad_()
    teacher = TeacherLogProbs.from_logits(
        random_logits(3, 7, seed=4, dtype=torch.float64), temperature=1.5, top_k=top_k
    )
    targets = torch.tensor([0, 6, 2])
    assert torch.autograd.gradcheck(lambda x: mimicry(x, teacher, temperature=1.5), (student,))
    assert torch.autograd.gradcheck(lambda x: supervision(x, targets), (student,))


def test_gradients_of_synergy_are_right() -> None:
    attention = random_logits(3, 5, seed=5, dtype=torch.float64).requires_grad_()
    mlp = random_logits(3, 5, seed=6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, m: synergy(a, m, gamma=0.1), (attention, mlp))


def test_synergy_depends_on_directions_only() -> None:
    attention, mlp = random_logits(4, 6, seed=7), random_logits(4, 6, seed=8)
    scaled = synergy(attention * 100, mlp * 0.01)
    torch.testing.assert_close(scaled, synergy(attention, mlp))
    assert synergy(attention, attention, gamma=0.0).item() == pytest.approx(0.0, abs=1e-6)


def test_half_precision_logits_are_reduced_in_float32() -> None:
    student, logits = random_logits(2, 9, seed=9), random_logits(2, 9, seed=10)
    teacher = TeacherLogProbs.from_logits(logits.bfloat16(), temperature=1.0, top_k=0)
    assert teacher.log_probs.dtype == torch.float32
    assert mimicry(student.bfloat16(), teacher).dtype == torch.float32
    assert supervision(student.bfloat16(), torch.tensor([1, 2])).dtype == torch.float32


def test_rows_of_a_teacher_keep_their_outcomes_together() -> None:
    logits = random_logits(5, 9, seed=11)
    teacher = TeacherLogProbs.from_logits(logits, temperature=1.0, top_k=3)
    some = teacher.rows(torch.tensor([4, 0]))
    other = TeacherLogProbs.from_logits(logits[[4, 0]], temperature=1.0, top_k=3)
    assert torch.equal(some.log_probs, other.log_probs)
    assert some.indices is not None
    assert other.indices is not None
    assert torch.equal(some.indices, other.indices)
    assert some.log_probs.exp().sum(-1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
