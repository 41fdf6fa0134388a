"""The tensors of a set of vectors: what they add, how long that is, and sums of several sets.

Sums are for a mix of tasks, or for more demonstrations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorTensors:
    """The four tensors of an in-context vector as arrays.

    Attributes:
        attention_vectors: `[layers, hidden]`, added to what attention writes.
        mlp_vectors: `[layers, hidden]`, added to what the MLP writes.
        attention_weights: `[layers]`, the factor of each attention vector.
        mlp_weights: `[layers]`, the factor of each MLP vector.
    """

    attention_vectors: Float32Array
    mlp_vectors: Float32Array
    attention_weights: Float32Array
    mlp_weights: Float32Array

    @property
    def has_effect(self) -> bool:
        """Whether anything is added at any site."""
        return bool(self.shift().any())

    @property
    def num_layers(self) -> int:
        """Decoder layers that the tensors cover."""
        return int(self.attention_vectors.shape[0])

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream that the tensors fit."""
        return int(self.attention_vectors.shape[1])

    def shift(self) -> Float32Array:
        """`[layers, 2, hidden]`: what is added at strength 1, attention first."""
        attention = self.attention_weights[:, None] * self.attention_vectors
        mlp = self.mlp_weights[:, None] * self.mlp_vectors
        return np.stack((attention, mlp), axis=1)

    def norms(self) -> dict[str, list[float]]:
        """Length of the shift at strength 1, for each branch and layer."""
        pairs = {
            "attention": (self.attention_vectors, self.attention_weights),
            "mlp": (self.mlp_vectors, self.mlp_weights),
        }
        return {
            branch: [float(norm) for norm in row_norms(vectors) * np.abs(weights)]
            for branch, (vectors, weights) in pairs.items()
        }


def row_norms(vectors: Float32Array) -> npt.NDArray[np.float64]:
    """`[layers]`: the length of each vector."""
    norms: npt.NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return norms


def weighted_sum(parts: Sequence[VectorTensors], *, weights: Sequence[float]) -> VectorTensors:
    """The sum of the parts' shifts, as vectors whose weights are 1.

    The parts, at least one, have equal shapes, and a finite weight each.
    """
    total = np.zeros((parts[0].num_layers, 2, parts[0].hidden_size))
    for part, weight in zip(parts, weights, strict=True):
        total += weight * part.shift().astype(np.float64)
    summed = total.astype(np.float32)
    ones = np.ones(len(summed), dtype=np.float32)
    return VectorTensors(
        attention_vectors=summed[:, 0].copy(),
        mlp_vectors=summed[:, 1].copy(),
        attention_weights=ones,
        mlp_weights=ones.copy(),
    )
