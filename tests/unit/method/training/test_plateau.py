from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steps import finish
from app.method.training.configuration import TrainingConfig
from app.method.training.fitting import fit
from app.method.training.loop import TrainLoop, TrainState
from app.method.training.plan import make_plan
from app.method.training.progress import Reporter, Steps
from app.method.training.teacher import Answered, compute_teacher
from tests.fakes.models.backbones import tiny_examples

EXAMPLES = tiny_examples(24)
ROWS = np.zeros((len(EXAMPLES), 4), dtype=np.float32)
CONFIG = TrainingConfig(
    shots=2,
    num_queries=8,
    contexts_per_query=1,
    max_steps=30,
    min_steps=6,
    evaluate_every=1,
    patience=2,
    mimicry_weight=0.0,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScriptedLoop(TrainLoop):
    """A loop whose held-out items say what they are told to."""

    script: Iterator[Sequence[bool]]

    def measure(self, *_: object, **__: object) -> Steps[list[Answered]]:
        yield None
        return [Answered(is_right=hit, loss=1.0, num_tokens=1) for hit in next(self.script)]


def steps_taken(backbone: Backbone, config: TrainingConfig, *, learnt_at: int | None) -> TrainState:
    """A run that answers the most usual answer, and everything right from one measurement on."""
    features = FeatureCache(backbone)

    def script() -> Iterator[Sequence[bool]]:
        for step in range(1, config.max_steps + 1):
            learnt = learnt_at is not None and step >= learnt_at
            yield [True] * len(loop.plan.measured) if learnt else loop.plan.majority_hits

    loop = ScriptedLoop(
        backbone=backbone,
        config=config,
        features=features,
        examples=EXAMPLES,
        rows=ROWS,
        plan=make_plan(EXAMPLES, ROWS, config),
        reporter=Reporter(),
        identity="",
        script=script(),
    )
    teacher = finish(
        compute_teacher(
            backbone, loop.plan.lessons, features=features, temperature=1.0, top_k=0,
            token_budget=2000, max_rows=16,
        )
    )  # fmt: skip
    return finish(fit(loop, teacher, None, config=config, num_steps=config.max_steps))


@pytest.mark.parametrize(
    ("learnt_at", "min_steps", "steps"),
    [
        pytest.param(1, 6, 8, id="the cut not before the fewest, the end two measurements later"),
        pytest.param(1, 12, 14, id="however many those are"),
        pytest.param(10, 6, 14, id="found late: two measurements to the cut, two to the end"),
        pytest.param(None, 6, 30, id="never better than the most usual answer"),
    ],
)
def test_a_plateau_ends_a_run_that_beats_the_most_usual_answer(
    learnt_at: int | None, min_steps: int, *, steps: int, learner: Backbone
) -> None:
    config = CONFIG.changed(min_steps=min_steps)
    state = steps_taken(learner, config, learnt_at=learnt_at)
    assert state.step == steps
    assert state.is_above_majority == (learnt_at is not None)
