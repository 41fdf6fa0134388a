"""A table from what the backbone says to what is mostly right then."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence


def fit(outputs: Sequence[str], answers: Sequence[str]) -> dict[str, str]:
    """For every zero-shot answer, the true answer that labelled items most often had with it."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text, answer in zip(outputs, answers, strict=True):
        found[text.casefold()][answer] += 1
    return {text: counts.most_common(1)[0][0] for text, counts in found.items()}


def look_up(table: Mapping[str, str], output: str) -> str:
    """The answer instead of what was said; what is not in the table stays."""
    return table.get(output.casefold(), output)
