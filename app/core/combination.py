"""The rules by which trained vectors are combined, for whoever asks and whoever does it."""

from typing import Final, Literal, TypeAlias, get_args

Rule: TypeAlias = Literal["best", "mean", "weighted", "learned"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)
MAX_PARTS: Final = 16
