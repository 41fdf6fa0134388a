"""What jobs beside trainings are asked for: rules that combine vectors, methods that measure."""

from typing import Final, Literal, TypeAlias, get_args

Rule: TypeAlias = Literal["best", "mean", "weighted", "learned"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)
MAX_PARTS: Final = 16

Method: TypeAlias = Literal[
    "m2iv", "zero_shot", "majority", "icl", "icl_balanced", "knn_icl", "nearest_copy"
]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
ALWAYS: Final[tuple[Method, ...]] = ("m2iv", "zero_shot", "majority")
"""What every evaluation measures: without them nobody can say what the vector is worth."""
DEFAULTS: Final[tuple[Method, ...]] = (*ALWAYS, "icl", "knn_icl", "nearest_copy")
MAX_ITEMS: Final = 10_000
