"""A pass through the backbone under shifts, and the check that all of them were applied."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from app.method.steering.injection import ShiftHooks, Shifts, SiteShifts, TokenRows


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
