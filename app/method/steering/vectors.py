"""The four tensors of a trained M2IV and the shift they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float32
from torch import Tensor

from app.core.vectors.tensors import VectorTensors, weighted_sum

TENSOR_NAMES: Final = ("attention_vectors", "mlp_vectors", "attention_weights", "mlp_weights")


@dataclass(frozen=True, kw_only=True, eq=False)
class InContextVectors:
    """A vector and a weight for each branch of each decoder layer.

    Source: M2IV, arXiv 2504.04633, section 3.
    """

    attention_vectors: Float32[Tensor, "layers hidden"]
    mlp_vectors: Float32[Tensor, "layers hidden"]
    attention_weights: Float32[Tensor, " layers"]
    mlp_weights: Float32[Tensor, " layers"]

    @classmethod
    def from_tensors(cls, tensors: VectorTensors) -> "InContextVectors":
        """The vectors that a decoded file describes, copied into CPU memory."""
        return cls(
            **{name: torch.tensor(getattr(tensors, name)) for name in TENSOR_NAMES},
        )

    @classmethod
    def summed(
        cls, parts: Sequence["InContextVectors"], *, weights: Sequence[float]
    ) -> "InContextVectors":
        """Vectors whose shift is the weighted sum of the parts' shifts, in CPU memory."""
        return cls.from_tensors(
            weighted_sum([part.to_tensors() for part in parts], weights=weights)
        )

    def to_tensors(self) -> VectorTensors:
        """The four tensors as arrays of their own memory, ready for a vector file."""
        # Copied by numpy: torch would give helpers to whatever thread this is.
        arrays = {name: getattr(self, name).detach().cpu().numpy() for name in TENSOR_NAMES}
        return VectorTensors(**{name: array.copy() for name, array in arrays.items()})

    def shift(self, strength: float = 1.0) -> Float32[Tensor, "layers 2 hidden"]:
        """What is added to the residual stream: weight times vector times strength.

        Args:
            strength: Factor over the whole; 0 gives exact zeros, a negative one steers away.

        Returns:
            Index 0 of the middle axis is the attention branch, 1 the MLP branch. Gradients flow
            into the four tensors.
        """
        attention = self.attention_weights[:, None] * self.attention_vectors
        mlp = self.mlp_weights[:, None] * self.mlp_vectors
        return torch.stack((attention, mlp), dim=1) * strength

    def scaled(self, strength: float) -> "InContextVectors":
        """Copies on the CPU whose shift at strength 1 is this one's at the given strength."""
        scaled = InContextVectors.from_tensors(self.to_tensors())
        scaled.attention_weights.mul_(strength)
        scaled.mlp_weights.mul_(strength)
        return scaled
