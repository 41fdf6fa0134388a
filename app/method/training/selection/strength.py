"""How strongly trained vectors should act, and from where on they destroy answers."""

from typing import Final

from jaxtyping import Float
from torch import Tensor

from app.method.training.loop import TrainLoop
from app.method.training.progress import Steps

_STRENGTHS: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
_STRONGEST_DEFAULT: Final = 1.5
# Without held-out items nobody knows; answers were seen to break at twice the trained dose.
_UNMEASURED: Final = 1.5
_STILL_GOOD: Final = 0.9


def calibrate(
    loop: TrainLoop, shifts: Float[Tensor, "sets layers 2 hidden"]
) -> Steps[tuple[float, float]]:
    """Factors over the vectors: what held-out items do best with, and the highest that is good.

    The best one costs no right answer against strength 1 and has the lowest loss. The highest is
    the last, going up from there, that keeps nine of ten right answers.
    """
    queries = loop.queries
    if not queries:
        return 1.0, _UNMEASURED
    right: dict[float, int] = {}
    loss: dict[float, float] = {}
    for strength in _STRENGTHS:
        answers = yield from loop.measure(queries, shifts=shifts * strength)
        right[strength] = sum(answer.is_right for answer in answers)
        loss[strength] = sum(answer.loss for answer in answers)
        loop.reporter.stop_if_asked()
    good = [
        strength
        for strength in _STRENGTHS
        if strength <= _STRONGEST_DEFAULT and right[strength] >= right[1.0]
    ]
    best = highest = min(good, key=lambda strength: loss[strength])
    for strength in _STRENGTHS:
        if strength <= best:
            continue
        if right[strength] < _STILL_GOOD * right[best]:
            break
        highest = strength
    return best, highest
