"""What a training run will do, fixed before it starts by items, settings and backbone."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32

from app.core.backbones import BackboneDescription
from app.method.backbone.examples import Episode, Example
from app.method.backbone.randomness import generator_for
from app.method.evaluation.metrics import majority_hits
from app.method.training.configuration import TrainingConfig
from app.method.training.demonstrations import (
    choose_folds,
    choose_queries,
    draw_context,
    hold_out,
    require_pictures,
)

_BUCKET_BATCHES: Final = 8
_WITHOUT_EFFECT: Final = ("report_every", "checkpoint_every")
FOLDS: Final = 4
_FEWEST_FOR_ALL_FOLDS: Final = 24
_SMALL_BATCH: Final = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingPlan:
    """The roles of the items and every draw of demonstrations.

    One set of vectors learns from all queries and is the run's result. With few items they are in
    folds, and beside it one further set a fold learns from all queries but those of the fold, to
    measure what vectors do on items that they have not seen.

    Attributes:
        queries: Item numbers that the vectors are trained on.
        support: Those that demonstrations are drawn from. No two roles share a picture, unless
            items are so few that all of them have every role.
        folds: Fold of each query, from 1; all 0 where there are no folds.
        episodes: Each query with its demonstrations: all queries with their first context, then all
            with their second, and on. Within folds, demonstrations are of the query's own fold, so
            that the set that leaves out a fold learns nothing of it through the teacher either.
        measured: Item numbers that measure.
        measured_sets: Which set of vectors measures on each of them; it has not seen it.
        majority_hits: Which of them have the most usual answer of those that may be shown.
        pools: For each of them, the items that may be shown to whoever wants demonstrations.
    """

    queries: tuple[int, ...]
    support: tuple[int, ...]
    folds: tuple[int, ...]
    episodes: tuple[Episode, ...]
    measured: tuple[int, ...]
    measured_sets: tuple[int, ...]
    majority_hits: tuple[bool, ...]
    pools: tuple[tuple[int, ...], ...]
    batch_size: int
    steps_per_epoch: int
    num_steps: int

    @property
    def num_queries(self) -> int:
        """Queries of one epoch."""
        return len(self.queries)

    @property
    def num_sets(self) -> int:
        """Sets of vectors that learn beside each other."""
        # Few queries need not come from every fold, and the items of each are measured.
        return 1 + max(*self.folds, *self.measured_sets, 0)

    def episode_of(self, query: int, *, epoch: int) -> int:
        """Which episode a query uses in an epoch; epochs take its contexts in turn."""
        return (epoch * self.num_queries + query) % len(self.episodes)

    def sets(self, query: int) -> list[int]:
        """The sets of vectors that learn from a query: all but its own fold's."""
        return [0, *(other for other in range(1, self.num_sets) if other != self.folds[query])]


def make_plan(
    examples: Sequence[Example],
    rows: Float32[np.ndarray, "items width"],
    config: TrainingConfig,
) -> TrainingPlan:
    """Decides who is asked, who demonstrates and who measures.

    Raises:
        InvalidDatasetError: There are too few pictures.
    """
    is_few = len(examples) < config.cross_fit_below and config.held_out_fraction > 0
    return _cross_fitted(examples, config) if is_few else _split_once(examples, rows, config)


def _cross_fitted(examples: Sequence[Example], config: TrainingConfig) -> TrainingPlan:
    image_ids = [example.image_id for example in examples]
    require_pictures(image_ids)
    num_folds = FOLDS if len(set(image_ids)) >= _FEWEST_FOR_ALL_FOLDS else 2
    folds = choose_folds(image_ids, num_folds=num_folds, seed=config.seed)
    everything = tuple(range(len(examples)))
    members = [tuple(i for i in everything if folds[i] == fold) for fold in range(num_folds)]
    others = [tuple(i for i in everything if folds[i] != fold) for fold in range(num_folds)]
    generator = generator_for(config.seed, "measure")
    count = min(config.max_held_out, len(everything))
    measured = np.sort(generator.choice(len(everything), size=count, replace=False)).tolist()
    queries = np.sort(generator.permutation(len(everything))[: config.num_queries]).tolist()
    return _plan(
        examples,
        config,
        queries=tuple(queries),
        support=everything,
        folds=tuple(1 + folds[item] for item in queries),
        shown={item: members[folds[item]] for item in queries},
        measured=tuple(measured),
        measured_sets=tuple(1 + folds[item] for item in measured),
        pools=tuple(others[folds[item]] for item in measured),
    )


def _split_once(
    examples: Sequence[Example],
    rows: Float32[np.ndarray, "items width"],
    config: TrainingConfig,
) -> TrainingPlan:
    training, held_out = hold_out(
        examples,
        fraction=config.held_out_fraction,
        fewest=config.min_held_out,
        most=config.max_held_out,
        seed=config.seed,
    )
    queries, support = choose_queries(
        rows[list(training)],
        [examples[index].image_id for index in training],
        num_queries=config.num_queries,
        seed=config.seed,
    )
    query_items = tuple(training[index] for index in queries)
    demonstrating = tuple(training[index] for index in support)
    return _plan(
        examples,
        config,
        queries=query_items,
        support=demonstrating,
        folds=(0,) * len(query_items),
        shown=dict.fromkeys(query_items, demonstrating),
        measured=held_out,
        measured_sets=(0,) * len(held_out),
        pools=(training,) * len(held_out),
    )


def _plan(
    examples: Sequence[Example],
    config: TrainingConfig,
    *,
    queries: tuple[int, ...],
    support: tuple[int, ...],
    folds: tuple[int, ...],
    shown: Mapping[int, tuple[int, ...]],
    measured: tuple[int, ...],
    measured_sets: tuple[int, ...],
    pools: tuple[tuple[int, ...], ...],
) -> TrainingPlan:
    count = len(queries)
    batch_size = min(config.batch_size, count, max(_SMALL_BATCH, count // 6))
    steps_per_epoch = -(-count // batch_size)
    num_steps = config.max_steps
    if config.epochs is not None:
        num_steps = min(num_steps, config.epochs * steps_per_epoch)
    num_contexts = min(config.contexts_per_query, -(-num_steps // steps_per_epoch))

    def episode(item: int, draw: int) -> Episode:
        others = [i for i in shown[item] if examples[i].image_id != examples[item].image_id]
        context = draw_context(others, shots=config.shots, query=item, draw=draw, seed=config.seed)
        return Episode(query=examples[item], context=tuple(examples[index] for index in context))

    return TrainingPlan(
        queries=queries,
        support=support,
        folds=folds,
        episodes=tuple(episode(item, draw) for draw in range(num_contexts) for item in queries),
        measured=measured,
        measured_sets=measured_sets,
        majority_hits=_majority_hits(examples, measured, pools),
        pools=pools,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
    )


def _majority_hits(
    examples: Sequence[Example], measured: Sequence[int], pools: Sequence[tuple[int, ...]]
) -> tuple[bool, ...]:
    # Within folds the most usual of every item that may be shown is seldom the others' own.
    shown = sorted({item for pool in set(pools) for item in pool})
    answers = [examples[item].answer for item in measured]
    if not answers:
        return ()
    return tuple(majority_hits([examples[item].answer for item in shown], answers))


def epoch_batches(
    lengths: Sequence[int], *, batch_size: int, epoch: int, seed: int
) -> list[list[int]]:
    """Query numbers by batch for one epoch: shuffled, yet similar lengths together."""
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
    settings = config.model_dump()
    for name in _WITHOUT_EFFECT:
        del settings[name]
    record = {
        "backbone": backbone.fingerprint,
        "config": settings,
        "items": [
            (one.id, one.image_id, one.question, one.answer, [it.digest for it in one.pictures])
            for one in examples
        ],
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
