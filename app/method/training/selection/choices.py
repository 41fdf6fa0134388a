"""Which weights of the losses held-out items ask for, and how strongly vectors should act.

A teacher that is weaker than the labels pulls the vectors down, so its loss is worth only what
held-out items say. Each candidate learns for a few steps from the same start, and the one with the
lowest held-out loss is taken. Of the strengths, from some on answers are destroyed.
"""

import math
from operator import itemgetter
from typing import Final

from jaxtyping import Float
from torch import Tensor

from app.method.training.configuration import TrainingConfig
from app.method.training.loop import TrainLoop, TrainState, fit
from app.method.training.progress import Steps
from app.method.training.teacher import TeacherCache

_STRENGTHS: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
_STRONGEST_DEFAULT: Final = 1.5
# Without held-out items nobody knows; answers were seen to break at twice the trained dose.
_UNMEASURED: Final = 1.5
_STILL_GOOD: Final = 0.9


def weight_candidates(config: TrainingConfig) -> list[TrainingConfig]:
    """The settings as they are, and with the labels alone; none adds a loss that was off."""
    found = [config]
    if config.mimicry_weight and config.supervision_weight:
        found.append(config.changed(mimicry_weight=0.0, synergy_weight=0.0, supervision_weight=1.0))
    elif config.synergy_weight:
        found.append(config.changed(synergy_weight=0.0))
    return found


def choose_recipe(loop: TrainLoop, teacher: TeacherCache) -> Steps[TrainingConfig]:
    """The settings that held-out items do best with.

    The loop's `trials` are those made before an interruption.

    Raises:
        JobCancelledError: Someone asked to stop; the trials that were finished are kept.
        SteeringError: The vectors could not be applied in full.
    """
    candidates = weight_candidates(loop.config)
    if len(candidates) == 1 or not loop.config.trial_steps or not loop.plan.measured:
        return loop.config
    for candidate in candidates[len(loop.trials) :]:
        loop.trials.append((yield from _trial(loop, teacher, candidate)))
        yield loop.checkpoint(None, teacher, TrainState())
    return min(zip(loop.trials, candidates, strict=True), key=itemgetter(0))[1]


def _trial(loop: TrainLoop, teacher: TeacherCache, config: TrainingConfig) -> Steps[float]:
    steps = min(config.trial_steps, loop.plan.num_steps)
    once = config.changed(evaluate_every=steps, checkpoint_every=steps)
    state = yield from fit(loop, teacher, None, config=once, num_steps=steps, phase="search")
    return state.best_loss if math.isfinite(state.best_loss) else math.inf


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
