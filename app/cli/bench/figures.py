"""From clocks to figures: rounds that interleave, medians, percentiles, ratios.

Knows numbers only; not what was measured.
"""

import gc
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter

from app.core.errors import InvalidInputError


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed.

    Args:
        values: At least one.
        share: In (0, 1]; 0.99 for p99.

    Raises:
        InvalidInputError: There are no values, or the share is out of its range.
    """
    ordered = sorted(values)
    if not ordered or not 0 < share <= 1:
        raise InvalidInputError(
            f"Wanted values and a share in (0, 1], found {len(ordered)} values and {share}"
        )
    return ordered[math.ceil(share * len(ordered)) - 1]


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The ratio of each round.

    What slows a whole round down, such as a program beside us, slows both of its sides.

    Raises:
        InvalidInputError: There is no round, or the two have different numbers of them.
    """
    if not numerators or len(numerators) != len(denominators):
        raise InvalidInputError(
            f"Wanted equally many rounds of both, found {len(numerators)} and {len(denominators)}"
        )
    return [over / under for over, under in zip(numerators, denominators, strict=True)]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(paired_ratios(numerators, denominators))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile."""
    return percentile(values, 0.25), percentile(values, 0.75)


def medians(times: Mapping[str, Sequence[float]], *, digits: int = 3) -> dict[str, float]:
    """The median of each, in milliseconds when the times are seconds."""
    return {name: round(statistics.median(t) * 1000, digits) for name, t in times.items()}


def interleave(
    arms: Mapping[str, Callable[[], float]], *, rounds: Iterable[int]
) -> dict[str, list[float]]:
    """What each arm returned, round after round.

    Every round visits every arm, and every other round in the opposite order, so that neither
    drift nor what an arm leaves in the caches favours one of them.

    Args:
        arms: What to measure, by name; each is called once a round and once before, unmeasured.
        rounds: The rounds' numbers, from 0 on.
    """
    for measure in arms.values():
        measure()
    found: dict[str, list[float]] = {name: [] for name in arms}
    for index in rounds:
        for name in list(arms)[:: 1 if index % 2 == 0 else -1]:
            found[name].append(arms[name]())
    return found


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage is collected during the block, and little is left over from before."""
    was_enabled = gc.isenabled()
    # The oldest objects are torch's and transformers' own; walking them takes longer than we time.
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of the work in seconds."""
    with without_collection():
        began = perf_counter()
        work()
        return perf_counter() - began
