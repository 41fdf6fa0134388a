"""Training in-context vectors for a task, from examples to vectors with a key and a report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32

from app.core.errors import InvalidDatasetError, OutOfDeviceMemoryError
from app.method.backbone.embedding import embed
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.randomness import generator_for
from app.method.evaluation.verdict import UNMEASURED, Verdict
from app.method.keys.encoder import KeyEncoder
from app.method.keys.task_key import TaskKey, build_task_key
from app.method.steering.dose import dose_of, residual_norms
from app.method.steering.vectors import InContextVectors
from app.method.steps import OffDevice, finish
from app.method.training.checkpoints import (
    Checkpoint,
    decode_checkpoint,
    encode_checkpoint,
)
from app.method.training.configuration import TrainingConfig
from app.method.training.loop import MAX_TRAINING_ROWS, TrainLoop, fit, restored_teacher
from app.method.training.plan import TrainingPlan, make_plan, run_identity
from app.method.training.progress import Event, Reporter, Steps, TrainingProgress
from app.method.training.prompts import prepare_all
from app.method.training.selection.choices import calibrate, choose_recipe
from app.method.training.selection.comparison import Comparison, compare
from app.method.training.student import LOSS_NAMES, sets_of
from app.method.training.teacher import TeacherCache, compute_teacher

_CHOSEN: Final = (
    "mimicry_weight",
    "synergy_weight",
    "supervision_weight",
    "vector_learning_rate",
)
_EMBEDDED_TOGETHER: Final = 256
_MOST_KEY_ITEMS: Final = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
    """What a run made.

    Attributes:
        plan: How they came about: the roles of the items and every draw of demonstrations.
        num_labels: Labelled items that asked or demonstrated.
        dose: Of the vectors at strength 1, which is the one that held-out items did best with.
        max_dose: The largest at which held-out answers stayed good.
        recipe: Weights of the losses and rate that were chosen, steps that were kept, and what the
            strength was before it became 1.
        seconds: Wall time, with what earlier attempts had spent by their last checkpoint.
        shots: Most demonstrations that the teacher was shown; fewer than wanted with few items.
    """

    vectors: InContextVectors
    plan: TrainingPlan
    num_labels: int
    losses: list[dict[str, float]]
    held_out: Comparison | None
    verdict: Verdict
    key: TaskKey | None
    dose: float
    max_dose: float
    recipe: dict[str, float]
    seconds: float
    teacher_accuracy: float
    shots: int


def train(
    backbone: Backbone,
    examples: Sequence[Example],
    config: TrainingConfig,
    *,
    on_step: Callable[[TrainingProgress], None] | None = None,
    checkpoint: bytes | None = None,
    on_checkpoint: Callable[[bytes], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    features: FeatureCache | None = None,
) -> TrainingResult:
    """Trains vectors on this thread: `training_steps` from the first to the last.

    `on_step` hears about progress every few steps, `on_checkpoint` is given states to keep: a later
    run goes on from the last one as its `checkpoint`.

    Raises:
        InvalidInputError: The checkpoint belongs to another run.
        CorruptDataError: The checkpoint cannot be read.
        VLibraryError: What `training_steps` raises.
    """

    def on_event(event: Event) -> None:
        if isinstance(event, TrainingProgress) and on_step is not None:
            on_step(event)
        if isinstance(event, Checkpoint) and on_checkpoint is not None:
            on_checkpoint(encode_checkpoint(event))

    steps = training_steps(
        backbone,
        examples,
        config,
        resume=None if checkpoint is None else partial(decode_checkpoint, checkpoint),
        should_stop=should_stop,
        features=features,
    )
    return finish(steps, on_event=on_event)


def training_steps(
    backbone: Backbone,
    examples: Sequence[Example],
    config: TrainingConfig,
    *,
    resume: Callable[[str], Checkpoint | None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    features: FeatureCache | None = None,
) -> Steps[TrainingResult]:
    """Trains vectors that make the backbone answer as if it had seen demonstrations.

    Yields between any two passes through the backbone, which others may use then: it is unsteered.
    How long a pass takes is bounded by the settings' `token_budget`.

    Args:
        backbone: Stays frozen.
        examples: The task. Some are asked, some demonstrate and some only measure, never with a
            picture in common.
        config: Settings; equal settings, examples and backbone give equal vectors on the CPU.
        resume: Finds what an earlier attempt kept, by the run's identity and on another thread;
            this one goes on from it and ends with the vectors it would have had without the
            interruption, bit for bit on the CPU.
        should_stop: Asked often; when it says yes the last state is yielded and the run ends.
        features: Vision features computed before, to be reused.

    Yields:
        What happened (progress, a state to keep), work for another thread, or None.

    Raises:
        InvalidDatasetError: There are too few examples or pictures.
        JobCancelledError: `should_stop` said yes.
        SteeringError: The vectors could not be applied in full.
        OutOfDeviceMemoryError: The accelerator is too small for these settings.

    Source: M2IV, arXiv 2504.04633; teacher and vision caches, balance and checkpoints are ours.
    """
    if not examples:
        raise InvalidDatasetError("Nothing to train on: wanted examples, found none")
    reporter = Reporter(should_stop=should_stop)
    identity: str = yield OffDevice(partial(run_identity, backbone.description, examples, config))
    found: Checkpoint | None = None
    if resume is not None:
        found = yield OffDevice(partial(resume, identity))
        # With it go the bytes that it reads, of which there are many.
        del resume
    if found is not None:
        reporter.earlier_seconds = float(found.notes["seconds"])
        reporter.held_out_accuracy = found.notes["held_out_accuracy"]
    cache = features or FeatureCache(backbone)
    try:
        rows = yield from embed_all(cache, examples, reporter=reporter)
        loop = TrainLoop(
            config=config,
            features=cache,
            examples=examples,
            rows=rows,
            norms=residual_norms(backbone),
            plan=(yield OffDevice(partial(make_plan, examples, rows, config))),
            reporter=reporter,
            identity=identity,
            trials=[] if found is None else list(found.notes["trials"]),
        )
        teacher = (yield from _teach(loop)) if found is None else restored_teacher(found)
        chosen = yield from choose_recipe(loop, teacher)
        done = found if found is not None and found.step else None
        state = yield from fit(loop, teacher, done, config=chosen, num_steps=loop.plan.num_steps)
        sets = sets_of(state.best)
        shifts = torch.stack([one.shift() for one in sets]).to(backbone.device)
        strength, highest = yield from calibrate(loop, shifts)
        report = yield from compare(loop, shifts * strength)
        dose = dose_of(sets[0].shift(strength), loop.norms)
        key = yield from _key(loop, examples)
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemoryError(
            "The accelerator has no room for this training: wanted a smaller token_budget or "
            "gradient_checkpointing"
        ) from error
    recipe = {name: float(getattr(chosen, name)) for name in _CHOSEN}
    return TrainingResult(
        vectors=sets[0].scaled(strength),
        plan=loop.plan,
        num_labels=len({examples[item].id for item in (*loop.plan.queries, *loop.plan.support)}),
        losses=[dict(zip(LOSS_NAMES, step, strict=True)) for step in state.losses],
        held_out=report,
        verdict=UNMEASURED if report is None else report.verdict,
        key=key,
        dose=dose,
        max_dose=dose * highest / strength,
        recipe={**recipe, "steps": state.best_step, "strength": strength},
        seconds=reporter.seconds,
        teacher_accuracy=teacher.accuracy,
        shots=max(len(episode.context) for episode in loop.plan.episodes),
    )


def embed_all(
    features: FeatureCache, examples: Sequence[Example], *, reporter: Reporter
) -> Steps[Float32[np.ndarray, "items width"]]:
    """What says how near items lie to one another; afterwards the cache knows their pictures.

    Raises:
        JobCancelledError: The reporter was asked to stop.
    """
    images = [example.image for example in examples]
    num_pictures = len({example.image_id for example in examples})
    pictures = [image for image in images if image is not None]
    yield from prepare_all(pictures, features=features, reporter=reporter, num_units=num_pictures)
    rows = []
    for start in range(0, len(examples), _EMBEDDED_TOGETHER):
        which = slice(start, start + _EMBEDDED_TOGETHER)
        questions = [example.question for example in examples[which]]
        rows.append(embed(features, images[which], questions))
        yield None
    yield reporter.progress(num_pictures)
    return np.concatenate(rows)


def _key(loop: TrainLoop, everyone: Sequence[Example]) -> Steps[TaskKey | None]:
    """Where the task lies, of all its items with a picture or of as many as tell enough.

    Keys have a picture's part and a question's, so items of text alone have no place among them; a
    task without pictures has no key.
    """
    seed = loop.config.seed
    examples = [example for example in everyone if example.image is not None]
    if not examples:
        return None
    chosen = generator_for(seed, "key").permutation(len(examples))[:_MOST_KEY_ITEMS]
    encoder = KeyEncoder(loop.features)
    yield from encoder.prepare()
    rows = []
    for start in range(0, len(chosen), _EMBEDDED_TOGETHER):
        some = [examples[place] for place in chosen[start : start + _EMBEDDED_TOGETHER]]
        images = [example.image for example in some]
        pixel_features = yield OffDevice(partial(encoder.pixel_features, images))
        questions = [example.question for example in some]
        rows.append(encoder.encode(images, questions, pixel_features=pixel_features))
        yield None
    key: TaskKey = yield OffDevice(
        partial(build_task_key, np.concatenate(rows), image_width=encoder.image_width, seed=seed)
    )
    return key


def _teach(loop: TrainLoop) -> Steps[TeacherCache]:
    loop.reporter.begin("teacher", len(loop.plan.episodes))
    return compute_teacher(
        loop.features,
        loop.plan.episodes,
        temperature=loop.config.temperature,
        top_k=loop.config.teacher_top_k,
        token_budget=loop.config.token_budget,
        max_rows=MAX_TRAINING_ROWS,
        instruction=loop.config.instruction,
        reporter=loop.reporter,
    )
