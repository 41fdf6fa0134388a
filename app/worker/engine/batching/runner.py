"""How rows are run: the seam between the engine and its two ways of decoding.

`ContinuousBatching` decodes all running rows in one pass, whenever they joined. `StaticBatching`
decodes those together that were prefilled together, by the stock loop, for families that need it.
"""

from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from app.method.steering.injection import ShiftHooks, Shifts, SiteShifts, TokenRows
from app.worker.engine.sequence import Sequence


@dataclass(frozen=True, kw_only=True, eq=False)
class ForwardOutput:
    """A pass through the backbone.

    Attributes:
        logits: Of each row's next token, float32.
        sites_hit: Sites that were shifted, of rows that are steered.
    """

    logits: Float[Tensor, "rows vocab"]
    sites_hit: int


def checked_forward(
    model: Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    hooks: ShiftHooks,
    shifts: Shifts | SiteShifts | None,
    token_rows: TokenRows | None = None,
) -> tuple[Any, int]:
    """What a pass under these shifts gives out, and how many sites they reached.

    Nothing is bound afterwards.

    Raises:
        SteeringError: A shift was not applied in full.
    """
    receipt = hooks.bind(shifts, token_rows=token_rows)
    try:
        outputs = model(**inputs, return_dict=True)
    finally:
        hooks.bind(None)
    if shifts is None:
        return outputs, 0
    receipt.verify()
    return outputs, receipt.sites_hit


@runtime_checkable
class Runner(Protocol):
    """Runs rows; device thread only. A pass never changes rows that it is not about."""

    @property
    def num_sites(self) -> int:
        """Sites that a steered pass has to hit."""

    @property
    def is_repeatable(self) -> bool:
        """Whether a failed decode can be repeated, with all of a group's rows or some of them."""

    def is_varlen(self, sequence: Sequence) -> bool:
        """Whether its prompt may be read end to end with others, so that nothing is padded."""

    @property
    def groups(self) -> abc.Sequence[abc.Sequence[Sequence]]:
        """The running rows, those together that are decoded together."""

    def prefill(self, rows: abc.Sequence[Sequence]) -> ForwardOutput:
        """The pass before each row's first token; the rows run from then on.

        Raises:
            SteeringError: A shift could not be applied in full.
        """

    def decode(self, rows: abc.Sequence[Sequence]) -> ForwardOutput:
        """The pass after the tokens last taken.

        Args:
            rows: A group or, where decoding is repeatable, a single row of one.

        Raises:
            SteeringError: A shift could not be applied in full.
        """

    def take(self, rows: abc.Sequence[Sequence], token_ids: abc.Sequence[int]) -> None:
        """Append one token to each of these rows, which a pass was just about."""

    def drop(self, rows: abc.Sequence[Sequence]) -> None:
        """Free these rows; those that do not run are left alone."""

    def clear(self) -> None:
        """Free all rows, in whatever state they are."""

    def close(self) -> None:
        """Take the hooks off the backbone."""
