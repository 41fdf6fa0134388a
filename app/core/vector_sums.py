"""Several sets of vectors made into one: for a mix of tasks, or for more demonstrations."""

from collections.abc import Sequence

import numpy as np

from app.core.vector_file import VectorTensors


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
