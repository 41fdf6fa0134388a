"""The ways of answering that a stored vector is measured beside, for who asks and who measures."""

from typing import Final, Literal, TypeAlias, get_args

Method: TypeAlias = Literal[
    "m2iv", "zero_shot", "majority", "icl", "icl_balanced", "knn_icl", "nearest_copy"
]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
ALWAYS: Final[tuple[Method, ...]] = ("m2iv", "zero_shot", "majority")
"""What every evaluation measures: without them nobody can say what the vector is worth."""
DEFAULTS: Final[tuple[Method, ...]] = (*ALWAYS, "icl", "knn_icl", "nearest_copy")
MAX_ITEMS: Final = 10_000
