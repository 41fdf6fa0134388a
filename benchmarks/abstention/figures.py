"""Rates of right finds, accepts and refusals, as means over tasks and for the worst task."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, TypeAlias

NOTHING: Final = "-"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found for one query: a task, or nothing and why."""

    name: str
    reason: str | None = None


Rate: TypeAlias = Callable[[str, Sequence[Answer]], float]


def right(name: str, answers: Sequence[Answer]) -> float:
    """Of the queries that were answered, the share that found their own task."""
    given = [answer.name == name for answer in answers if answer.name != NOTHING]
    return fmean(given) if given else 0.0


def accepted(_name: str, answers: Sequence[Answer]) -> float:
    """The share of queries that found some task."""
    return fmean(answer.name != NOTHING for answer in answers)


def refused(_name: str, answers: Sequence[Answer]) -> float:
    """The share of queries that found nothing."""
    return fmean(answer.name == NOTHING for answer in answers)


def ambiguous(_name: str, answers: Sequence[Answer]) -> float:
    """The share of queries that nothing was applied to because two tasks look the same."""
    return fmean(answer.reason == "ambiguous" for answer in answers)


def summary(found: Mapping[str, Sequence[Answer]], rate: Rate) -> dict[str, Any]:
    """The mean of a rate over tasks, and its worst task."""
    rates = {name: rate(name, answers) for name, answers in found.items()}
    ordered = sorted(rates, key=lambda name: rates[name])
    worst = ordered[0] if rate in {right, ambiguous} else ordered[-1]
    return {
        "mean": round(fmean(rates.values()), 4),
        "worst": round(rates[worst], 4),
        "worst_task": worst,
        "tasks": len(rates),
    }


def three_rates(
    own: Mapping[str, Sequence[Answer]], foreign: Mapping[str, Sequence[Answer]]
) -> dict[str, Any]:
    """`top1`, `false_accept` and `false_refusal`."""
    return {
        "top1": summary(own, right),
        "false_accept": summary(foreign, accepted),
        "false_refusal": summary(own, refused),
    }


def confusion(found: Mapping[str, Sequence[Answer]]) -> dict[str, dict[str, int]]:
    """What each task's queries found, or why nothing."""
    return {
        name: dict(Counter(one.name if one.reason is None else one.reason for one in answers))
        for name, answers in found.items()
    }
