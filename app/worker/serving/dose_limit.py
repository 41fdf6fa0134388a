"""How strongly vectors may act on an answer; knows tensors and no request."""

from dataclasses import dataclass
from math import floor
from typing import Final

from jaxtyping import Float
from torch import Tensor

from app.core.errors import InvalidInputError
from app.method.steering.dose import dose_of

# The same shift's dose differs a little between devices and files.
_ROUNDING: Final = 1.01

Shift = Float[Tensor, "layers 2 hidden"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DoseLimit:
    """How strongly a shift may act.

    Attributes:
        norms: Usual length of the residual stream behind each layer.
        highest: Largest ratio of a shift's length to that which is applied.
    """

    norms: Float[Tensor, " layers"]
    highest: float

    def check(
        self, shift: Shift, *, highest: float | None = None, strength: float | None = None
    ) -> float:
        """The dose of a shift.

        Args:
            shift: Strengths included.
            highest: What its own vector bears, in place of what everybody may ask for.
            strength: Of the one vector that there is.

        Raises:
            InvalidInputError: It is too high.
        """
        dose = dose_of(shift, self.norms)
        most = self.highest if highest is None else highest
        if dose <= most * _ROUNDING:
            return dose
        raise InvalidInputError(
            f"The vectors act too strongly: wanted a dose of at most {most:.3g}, "
            f"found {dose:.3g}; {_allowed(most / dose, strength)}",
            details={"wanted": most, "found": dose},
        )


def _allowed(share: float, strength: float | None) -> str:
    """What may be asked for, rounded so that it is taken."""
    if strength is None:
        return f"lower the strengths to {floor(share * 1000) / 1000:.3f} of what they are"
    return f"the largest strength is {floor(abs(strength) * share * 1000) / 1000:.3f}"
