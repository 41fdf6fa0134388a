"""Several sets of vectors made into one, for more demonstrations than one training can take.

A combination is stored like any other set: its vectors are the combined shifts, its weights 1.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor

from app.core.errors import IncompatibleBackboneError, InvalidInputError
from app.method.steering.vectors import InContextVectors


def combine(parts: Sequence[InContextVectors], *, weights: Sequence[float]) -> InContextVectors:
    """The weighted sum of the parts' shifts.

    Raises:
        InvalidInputError: There is no part, or not one finite weight for each.
        IncompatibleBackboneError: The parts differ in layers or width.
    """
    if not parts or len(weights) != len(parts):
        raise InvalidInputError(
            f"Wanted at least one set of vectors and a weight for each, found {len(parts)} sets "
            f"and {len(weights)} weights"
        )
    if not all(map(math.isfinite, weights)):
        raise InvalidInputError(f"Wanted finite weights of vectors, found {list(weights)}")
    shapes = {tuple(part.attention_vectors.shape) for part in parts}
    if len(shapes) > 1:
        raise IncompatibleBackboneError(
            f"Vectors of different backbones cannot be combined: found shapes {sorted(shapes)}",
            details={"found": [list(shape) for shape in sorted(shapes)]},
        )
    shifts = torch.stack([part.shift().detach().cpu() for part in parts])
    factors = torch.tensor(weights, dtype=torch.float32)
    total: Float32[Tensor, "layers 2 hidden"] = torch.einsum("p,plbh->lbh", factors, shifts)
    ones = torch.ones(total.shape[0])
    return InContextVectors(
        attention_vectors=total[:, 0].clone(),
        mlp_vectors=total[:, 1].clone(),
        attention_weights=ones,
        mlp_weights=ones.clone(),
    )
