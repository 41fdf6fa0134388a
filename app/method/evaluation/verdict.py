"""What held-out answers say about vectors: better than chance, too few to tell, no gain, or worse.

All comparisons are paired: both sides answered the same items, and the exact McNemar test looks
only at the items that they answered differently.

Source: McNemar (1947), Note on the sampling error of the difference between correlated proportions;
the interval of the gain is Agresti and Min's (2005). The rules of the states are ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.core.states import TrainedStatus
from app.method.evaluation.metrics import Z_95

# One-sided: how often vectors without any gain would pass for better.
CHANCE: Final = 0.05
# A gain that is smaller than this is not worth more labels.
WORTHWHILE_GAIN: Final = 0.1
_FEWEST_FOR_RANDOM: Final = 20
_MAJORITY_LEVEL: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much larger one share of right answers is than another's, on the same items.

    Attributes:
        low: Lower end of its 95 % interval.
        chance: How likely so large a gain, or a larger one, is without any difference.
    """

    mean: float
    low: float
    high: float
    chance: float


def paired_gain(ours: Sequence[bool], theirs: Sequence[bool]) -> Gain:
    """The gain of one side over the other."""
    wins = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    losses = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    items = len(ours)
    # Half an item in every cell keeps the interval honest where nothing differs.
    padded = items + 2
    centre = (wins - losses) / padded
    variance = (wins + losses + 1) / padded - centre**2
    half = Z_95 * math.sqrt(variance / padded)
    return Gain(
        mean=(wins - losses) / items,
        low=max(-1.0, centre - half),
        high=min(1.0, centre + half),
        chance=_tail(wins, wins + losses),
    )


def _tail(wins: int, differing: int) -> float:
    """How likely at least so many heads are among tosses of a fair coin."""
    chance = math.fsum(
        math.exp(
            math.lgamma(differing + 1)
            - math.lgamma(count + 1)
            - math.lgamma(differing - count + 1)
            - differing * math.log(2)
        )
        for count in range(wins, differing + 1)
    )
    # Rounding may lead a hair beyond.
    return min(1.0, chance)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What held-out answers say of vectors.

    Attributes:
        looks_random: Whether no way of answering does better than always giving the most usual
            answer, though one could.
    """

    status: TrainedStatus
    reason: str
    looks_random: bool = False


UNMEASURED: Final = Verdict(
    status="unproven", reason="No items were held out, so nothing was measured."
)


def judge(
    *,
    steered: Sequence[bool],
    zero_shot: Sequence[bool],
    majority: Sequence[bool],
    demonstrated: Sequence[bool],
    others: Sequence[Sequence[bool]] = (),
) -> Verdict:
    """The verdict on vectors by items that took no part in training them.

    Each side says which items it answers right: the vectors, the backbone alone, the most usual
    answer, in-context learning, and other ways, which show alone whether the answers follow from
    what is asked.
    """
    items = len(steered)
    gains = {
        "zero-shot": paired_gain(steered, zero_shot),
        "the most usual answer": paired_gain(steered, majority),
    }
    is_better = {name: gain.chance <= CHANCE for name, gain in gains.items()}
    looks_random = (
        items >= _FEWEST_FOR_RANDOM
        # Where nearly all answers are the same, nothing could.
        and _exceeds([True] * items, majority)
        and not any(
            _exceeds(side, majority) for side in (steered, zero_shot, demonstrated, *others)
        )
    )
    if all(is_better.values()):
        shown = ", ".join(f"{gain.mean:+.1%} over {name}" for name, gain in gains.items())
        return Verdict(status="ready", reason=f"Better than chance on {items} items: {shown}.")
    if paired_gain(zero_shot, steered).chance <= CHANCE:
        worse = f"Worse than zero-shot on {items} items ({gains['zero-shot'].mean:+.1%})."
        return Verdict(status="collapsed", reason=worse, looks_random=looks_random)
    lacking = [name for name, better in is_better.items() if not better]
    name = min(lacking, key=lambda name: gains[name].high)
    gain = gains[name]
    status: TrainedStatus = "ineffective" if gain.high < WORTHWHILE_GAIN else "unproven"
    shown = "show no gain" if status == "ineffective" else "are too few to show a gain"
    found = (
        f"{items} items {shown} over {name}: {gain.mean:+.1%}, 95 % interval "
        f"{gain.low:+.1%} to {gain.high:+.1%}."
    )
    return Verdict(status=status, reason=found, looks_random=looks_random)


def _exceeds(side: Sequence[bool], majority: Sequence[bool]) -> bool:
    """Whether a way of answering knows more than which answer is the most usual."""
    gain = paired_gain(side, majority)
    return gain.mean >= _MAJORITY_LEVEL or gain.chance <= CHANCE
