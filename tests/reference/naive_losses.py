"""The method's equations in plain Python: one number at a time, no tensors, no tricks."""

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(value - top) for value in logits]
    return [weight / sum(weights) for weight in weights]


def mimicry(student: Rows, teacher: Rows, *, temperature: float) -> float:
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        q = softmax([value / temperature for value in student_row])
        p = softmax([value / temperature for value in teacher_row])
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


def abridged_mimicry(student: Rows, teacher: Rows, *, top_k: int) -> float:
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        q, p = softmax(student_row), softmax(teacher_row)
        kept = sorted(range(len(p)), key=lambda token: -p[token])[:top_k]
        total += sum(p[token] * (math.log(p[token]) - math.log(q[token])) for token in kept)
        p_rest = sum(p[token] for token in range(len(p)) if token not in kept)
        q_rest = sum(q[token] for token in range(len(q)) if token not in kept)
        total += p_rest * (math.log(p_rest) - math.log(q_rest))
    return total / len(student)


def supervision(student: Rows, targets: Sequence[int]) -> float:
    losses = [-math.log(softmax(row)[target]) for row, target in zip(student, targets, strict=True)]
    return sum(losses) / len(losses)


def synergy(attention: Rows, mlp: Rows, *, gamma: float) -> float:
    def unit(row: Sequence[float]) -> list[float]:
        length = math.sqrt(sum(value * value for value in row))
        return [value / length for value in row]

    total = 0.0
    for index, first in enumerate(attention):
        for other, second in enumerate(mlp):
            cosine = sum(a * b for a, b in zip(unit(first), unit(second), strict=True))
            total += (1 - cosine) ** 2 if index == other else gamma * cosine**2
    return total / len(attention)
