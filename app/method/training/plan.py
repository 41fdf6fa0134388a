"""What a training run will do, fixed before it starts by items, settings and backbone.

Knows roles and draws; computes nothing on the backbone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from jaxtyping import Float32

from app.core.backbones import BackboneDescription
from app.method.backbone.examples import Example
from app.method.backbone.randomness import generator_for
from app.method.training.configuration import TrainingConfig
from app.method.training.demonstrations import Split, choose_queries, draw_context, hold_out
from app.method.training.teacher import Lesson

_BUCKET_BATCHES: Final = 8
_WITHOUT_EFFECT: Final = ("report_every", "checkpoint_every")
_PACKAGES: Final = ("torch", "transformers", "numpy")


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The roles of the items and every draw of demonstrations.

    Attributes:
        split: Item numbers by role.
        lessons: Each query with its demonstrations: all queries of draw 0, then of draw 1, and on.
        measured: Each held-out item with demonstrations, to measure in-context learning with.
        steps_per_epoch: Optimiser steps of one pass over the queries.
    """

    split: Split
    lessons: tuple[Lesson, ...]
    measured: tuple[Lesson, ...]
    steps_per_epoch: int

    @property
    def num_queries(self) -> int:
        """Queries of one epoch."""
        return len(self.split.queries)

    def lesson_numbers(self, queries: Sequence[int], *, epoch: int) -> list[int]:
        """Which lessons these queries use in an epoch; epochs take the draws in turn."""
        draw = epoch % (len(self.lessons) // self.num_queries)
        return [draw * self.num_queries + query for query in queries]


def make_plan(
    examples: Sequence[Example],
    rows: Float32[np.ndarray, "items width"],
    config: TrainingConfig,
) -> Plan:
    """Decides who is asked, who demonstrates and who measures.

    Args:
        examples: All items.
        rows: Their embeddings.
        config: Sizes and seed.

    Raises:
        InvalidDatasetError: There are too few pictures.
    """
    training, held_out = hold_out(
        examples, fraction=config.held_out_fraction, most=config.max_held_out, seed=config.seed
    )
    queries, support = choose_queries(
        rows[list(training)],
        [examples[index].image_id for index in training],
        num_queries=config.num_queries,
        seed=config.seed,
    )
    split = Split(
        queries=tuple(training[index] for index in queries),
        support=tuple(training[index] for index in support),
        held_out=held_out,
    )

    def lesson(item: int, draw: int) -> Lesson:
        context = draw_context(
            split.support, shots=config.shots, query=item, draw=draw, seed=config.seed
        )
        return Lesson(query=examples[item], context=tuple(examples[index] for index in context))

    draws = min(config.contexts_per_query, config.epochs)
    return Plan(
        split=split,
        lessons=tuple(lesson(item, draw) for draw in range(draws) for item in split.queries),
        measured=tuple(lesson(item, 0) for item in held_out),
        steps_per_epoch=-(-len(split.queries) // config.batch_size),
    )


def epoch_batches(
    lengths: Sequence[int], *, batch_size: int, epoch: int, seed: int
) -> list[list[int]]:
    """Query numbers by batch for one epoch: shuffled, yet similar lengths together.

    Args:
        lengths: Characters of each query.
        batch_size: Queries a batch; one batch may be smaller.
        epoch: From 0.
        seed: Of the run.
    """
    generator = generator_for(seed, "epoch", epoch)
    order = [int(index) for index in generator.permutation(len(lengths))]
    bucket = _BUCKET_BATCHES * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), bucket):
        chunk = sorted(order[start : start + bucket], key=lambda index: (lengths[index], index))
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def run_identity(
    backbone: BackboneDescription, examples: Sequence[Example], config: TrainingConfig
) -> str:
    """A digest that is equal for runs that would end with the same vectors."""
    settings = config.to_dict()
    for name in _WITHOUT_EFFECT:
        del settings[name]
    record = {
        "backbone": backbone.fingerprint,
        "config": settings,
        "items": [(example.id, example.image_id, example.answer) for example in examples],
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def provenance(
    backbone: BackboneDescription,
    examples: Sequence[Example],
    *,
    config: TrainingConfig,
    plan: Plan,
) -> dict[str, Any]:
    """How a run's vectors come about, in JSON values: enough to do it again."""

    def ids(items: Sequence[int]) -> list[str]:
        return [examples[index].id for index in items]

    return {
        "method": "m2iv",
        "backbone": backbone.fingerprint,
        "config": config.to_dict(),
        "queries": ids(plan.split.queries),
        "support": ids(plan.split.support),
        "held_out": ids(plan.split.held_out),
        "contexts": [
            {"query": lesson.query.id, "demonstrations": [shown.id for shown in lesson.context]}
            for lesson in plan.lessons
        ],
        "library_versions": {name: version(name) for name in _PACKAGES},
    }
