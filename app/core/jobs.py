"""Jobs: their kinds, their states, the rules that combine vectors and the methods that measure."""

from typing import Final, Literal, TypeAlias, get_args

JobKind: TypeAlias = Literal["train", "combine", "evaluate"]
"""What a job does. Its settings are those of a training, or stand under the name of its kind."""
JobState: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JOB_STATES: Final[tuple[JobState, ...]] = get_args(JobState)
UNFINISHED_STATES: Final[tuple[JobState, ...]] = ("queued", "running")
FINAL_STATES: Final = frozenset(JOB_STATES) - set(UNFINISHED_STATES)

Rule: TypeAlias = Literal["best", "mean", "weighted", "learned"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)
MAX_PARTS: Final = 16
MAX_WEIGHT: Final = 100.0

Method: TypeAlias = Literal[
    "m2iv", "zero_shot", "majority", "icl", "icl_balanced", "knn_icl", "nearest_copy"
]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
BALANCED_SHOTS: Final = 8
"""Demonstrations of `icl_balanced`."""
ALWAYS: Final[tuple[Method, ...]] = ("m2iv", "zero_shot", "majority")
"""What every evaluation measures: without them nobody can say what the vector is worth."""
DEFAULTS: Final[tuple[Method, ...]] = (*ALWAYS, "icl", "knn_icl", "nearest_copy")
MAX_ITEMS: Final = 10_000
