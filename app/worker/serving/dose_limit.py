"""How strongly vectors may act on an answer; knows tensors and no request."""

from math import floor
from typing import Final

from jaxtyping import Float
from torch import Tensor

from app.core.errors import InvalidInputError
from app.method.steering.dose import dose_of

# The same shift's dose differs a little between devices and files.
_ROUNDING: Final = 1.01

Shift = Float[Tensor, "layers 2 hidden"]


def check_dose(
    shift: Shift,
    *,
    norms: Float[Tensor, " layers"],
    highest: float,
    strength: float | None = None,
) -> float:
    """The dose of a shift: how long it is beside what it is added to.

    `strength` is that of the only vector, to be told what would be taken.

    Raises:
        InvalidInputError: It is too high.
    """
    dose = dose_of(shift, norms)
    if dose <= highest * _ROUNDING:
        return dose
    raise InvalidInputError(
        f"The vectors act too strongly: wanted a dose of at most {highest:.3g}, "
        f"found {dose:.3g}; {_allowed(highest / dose, strength)}",
        details={"wanted": highest, "found": dose},
    )


def _allowed(share: float, strength: float | None) -> str:
    """What may be asked for, rounded so that it is taken."""
    if strength is None:
        return f"lower the strengths to {floor(share * 1000) / 1000:.3f} of what they are"
    return f"the largest strength is {floor(abs(strength) * share * 1000) / 1000:.3f}"
