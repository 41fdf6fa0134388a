"""Vectors beside their opponents on items that took no part in training them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from jaxtyping import Float
from torch import Tensor

from app.core.jobs import BALANCED_SHOTS
from app.method.backbone.examples import Episode
from app.method.evaluation.conditions import balanced_context, nearest_context
from app.method.evaluation.metrics import text_hits, wilson_interval
from app.method.evaluation.verdict import Gain, Verdict, judge, paired_gain
from app.method.steps import OffDevice
from app.method.training.answers import AnswerScore
from app.method.training.demonstrations import draw_context
from app.method.training.loop import TrainLoop
from app.method.training.progress import Steps


@dataclass(frozen=True, kw_only=True)
class ConditionScore:
    """How one way of answering did on the held-out items.

    Attributes:
        low: Lower end of its 95 % interval (Wilson's).
        prompt_tokens: Mean length of a prompt, image tokens included; 0 where no backbone is.
        labels: Labelled items that an answer depends on.
    """

    accuracy: float
    low: float
    high: float
    prompt_tokens: float
    labels: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ways of answering the same items, side by side.

    After a training the items also said when to stop and how strong to be, so `m2iv` is slightly
    flattered there; a figure to publish needs items that chose nothing.

    Attributes:
        conditions: `m2iv`, `zero_shot`, `icl`, `icl_balanced` (8 demonstrations of different
            answers), `knn_icl` (nearest picture and question), `nearest_copy` (the nearest item's
            answer), `majority` (always the most usual answer), or whatever was asked.
        gains: Of `m2iv` over every other way.
        shots: Demonstrations before a query, of `icl` and `knn_icl`.
        milliseconds: An answer's wall time on the device, in batches, by way of answering, where it
            was measured; 0 where no backbone is. Vision features are computed before.
        seconds: Wall time of all, where it was measured.
    """

    items: int
    conditions: dict[str, ConditionScore]
    gains: dict[str, Gain]
    verdict: Verdict
    shots: int = 0
    milliseconds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def compare(
    loop: TrainLoop, shifts: Float[Tensor, "sets layers 2 hidden"]
) -> Steps[Comparison | None]:
    """Vectors on the held-out items; None where there are none."""
    plan = loop.plan
    if not plan.measured:
        return None
    shots = min(loop.config.shots, *(len(pool) for pool in plan.pools))
    episodes, trivial = yield OffDevice(partial(_draw_episodes, loop, shots=shots))
    loop.reporter.begin("evaluate", len(episodes) * len(plan.measured))
    answers: dict[str, list[AnswerScore]] = {}
    for name, one_way in episodes.items():
        own = shifts if name == "m2iv" else None
        answers[name] = yield from loop.measure(one_way, shifts=own, reporter=loop.reporter)
    most_labels = max(len(pool) for pool in plan.pools)
    labels = {"zero_shot": 0, "icl": shots, "icl_balanced": min(BALANCED_SHOTS, most_labels)}
    comparison = compare_answers(answers, trivial, labels=labels, other_labels=most_labels)
    loop.reporter.held_out_accuracy = comparison.conditions["m2iv"].accuracy
    return replace(comparison, shots=shots)


def _draw_episodes(
    loop: TrainLoop, *, shots: int
) -> tuple[dict[str, list[Episode]], dict[str, list[bool]]]:
    """What each way of answering is asked, and the hits of those that need no backbone.

    No pool of a held-out item has one with its picture.
    """
    seed, examples = loop.config.seed, loop.examples
    episodes: dict[str, list[Episode]] = {"icl": [], "icl_balanced": [], "knn_icl": []}
    for item, pool in zip(loop.plan.measured, loop.plan.pools, strict=True):
        answers = [examples[other].answer for other in pool]
        similarities = (loop.rows @ loop.rows[item])[list(pool)]
        balanced = balanced_context(answers, shots=BALANCED_SHOTS, query=item, seed=seed)
        shown = {
            "icl": draw_context(pool, shots=shots, query=item, draw=0, seed=seed),
            "icl_balanced": [pool[place] for place in balanced],
            "knn_icl": [pool[place] for place in nearest_context(similarities, shots=shots)],
        }
        for name, others in shown.items():
            context = tuple(examples[other] for other in others)
            episodes[name].append(Episode(query=examples[item], context=context))
    copied = [episode.context[-1].answer for episode in episodes["knn_icl"]]
    trivial = {
        "nearest_copy": text_hits(copied, [episode.query.answer for episode in loop.queries]),
        "majority": list(loop.plan.majority_hits),
    }
    return {"m2iv": loop.queries, "zero_shot": loop.queries, **episodes}, trivial


def compare_answers(
    answers: Mapping[str, Sequence[AnswerScore]],
    trivial: Mapping[str, Sequence[bool]],
    *,
    labels: Mapping[str, int],
    other_labels: int,
    demonstrated: str = "icl",
) -> Comparison:
    """Every way of answering beside `m2iv`, on the same items.

    `answers` are by way of answering, `m2iv` and `zero_shot` among them; `trivial` are
    the hits of ways that need no backbone, `majority` among them. An answer of a way depends on so
    many labelled items as `labels` says, or else `other_labels`. The way that is `demonstrated`
    shows whether the task can be learnt from examples; where it is left out nobody can say that it
    cannot.
    """
    hits: dict[str, Sequence[bool]] = {
        **{name: [one.is_right for one in found] for name, found in answers.items()},
        **trivial,
    }
    steered = hits["m2iv"]
    return Comparison(
        items=len(steered),
        conditions={
            name: score_condition(found, answers.get(name, ()), labels.get(name, other_labels))
            for name, found in hits.items()
        },
        gains={name: paired_gain(steered, found) for name, found in hits.items() if name != "m2iv"},
        verdict=judge(
            steered=steered,
            zero_shot=hits["zero_shot"],
            majority=hits["majority"],
            demonstrated=hits.get(demonstrated, [True] * len(steered)),
            others=list(hits.values()),
        ),
    )


def score_condition(
    hits: Sequence[bool], answers: Sequence[AnswerScore], labels: int
) -> ConditionScore:
    """How one way of answering did."""
    accuracy, low, high = wilson_interval(sum(hits), len(hits))
    tokens = sum(answer.num_tokens for answer in answers) / max(1, len(answers))
    return ConditionScore(
        accuracy=accuracy,
        low=low,
        high=high,
        prompt_tokens=round(tokens, 1),
        labels=labels,
    )
