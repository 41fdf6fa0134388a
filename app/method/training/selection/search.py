"""Which weights of the losses held-out items ask for.

A teacher that is weaker than the labels pulls the vectors down, so its loss is worth only what
held-out items say. Each candidate learns for a few steps from the same start, and the one with the
lowest held-out loss is taken.
"""

import math

from app.method.training.configuration import TrainingConfig
from app.method.training.loop import TrainLoop, TrainState, fit
from app.method.training.progress import Steps
from app.method.training.teacher import TeacherCache


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
    if not loop.config.trial_steps or not loop.plan.measured:
        return loop.config
    earlier = iter(tuple(loop.trials))
    loop.trials.clear()
    tried: list[tuple[float, TrainingConfig]] = []

    for candidate in weight_candidates(loop.config):
        loss = next(earlier, None)
        if loss is None:
            loss = yield from _trial(loop, teacher, candidate)
        loop.trials.append(loss)
        yield loop.checkpoint(None, teacher, TrainState())
        tried.append((loss, candidate))
    return min(tried, key=lambda trial: trial[0])[1]


def _trial(loop: TrainLoop, teacher: TeacherCache, config: TrainingConfig) -> Steps[float]:
    steps = min(config.trial_steps, loop.plan.num_steps)
    once = config.changed(evaluate_every=steps, checkpoint_every=steps)
    state = yield from fit(loop, teacher, None, config=once, num_steps=steps, phase="search")
    return state.best_loss if math.isfinite(state.best_loss) else math.inf
