"""What jobs do that take vectors which are stored already, rather than train one.

Knows what each needs; how a job goes on and ends is the same for all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from app.library.records import VectorRecord
from app.method.training.progress import Steps
from app.worker.training import combination, evaluation


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """One kind of job.

    Attributes:
        load: Everything that the job names.
        steps_of: The work for the device.
        store: Puts the result where it belongs, in a transaction.
    """

    load: Callable[..., Awaitable[Any]]
    steps_of: Callable[..., Steps[Any]]
    store: Callable[..., Awaitable[VectorRecord]]


KINDS: Final = {
    combination.SETTING: JobKind(
        load=combination.load_combination,
        steps_of=combination.steps_of,
        store=combination.store_combination,
    ),
    evaluation.SETTING: JobKind(
        load=evaluation.load_evaluation,
        steps_of=evaluation.steps_of,
        store=evaluation.store_evaluation,
    ),
}
"""By what a job's settings name that is of this kind."""
