"""The states of a vector, and what they mean for people, for api, worker and commands alike."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

# What held-out items can show; `retired` is its owner's word.
TrainedStatus: TypeAlias = Literal["ready", "unproven", "ineffective", "collapsed"]
VectorStatus: TypeAlias = Literal[TrainedStatus, "retired"]
VECTOR_STATES: Final[tuple[VectorStatus, ...]] = get_args(VectorStatus)
ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ready": "Held-out items show that it helps. Use it by name, or let retrieval find it.",
        "unproven": "Too few held-out items to tell. Add labelled items and train again, or "
        "measure it on items of your own; until then retrieval leaves it out unless asked for.",
        "ineffective": "Held-out items show no gain. Check that the answers follow from picture "
        "and question, whether the backbone can give such answers, and whether it needs help.",
        "collapsed": "Worse than no vector. Do not use it; look for wrong labels, or train with "
        "a lower vector_learning_rate.",
        "retired": "Taken out of use by its owner.",
    }
)
LOOKS_RANDOM: Final = (
    "The answers look random: demonstrations, copying and vectors do no better than always giving "
    "the most usual answer. Check that labels belong to their pictures and questions."
)
