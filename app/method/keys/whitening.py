"""Features seen against a background: which of their directions tell pictures apart.

Source: within-class covariance normalisation, Hatch et al., Interspeech 2006.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float64

MAX_WIDTH: Final = 512
_SHRINKAGE: Final = 0.05
_SEED: Final = 2504_04633
_LEAST: Final = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """A change of axes after which the members of a background family differ alike in all.

    Attributes:
        centre: `[width]`, the background's mean.
        axes: `[width, kept]`.
    """

    centre: Float64[np.ndarray, " width"]
    axes: Float64[np.ndarray, "width kept"]

    def apply(self, rows: Float[np.ndarray, "items width"]) -> Float64[np.ndarray, "items kept"]:
        """The rows in the new axes, of length 1."""
        return unit_rows((rows - self.centre) @ self.axes)


def unit_rows(rows: Float64[np.ndarray, "items width"]) -> Float64[np.ndarray, "items width"]:
    """The rows, each of length 1 unless it is zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Float64[np.ndarray, "items width"] = rows / np.maximum(norms, 1e-12)
    return scaled


def fit_whitening(families: Sequence[Float[np.ndarray, "members width"]]) -> Whitening:
    """The whitening of what varies within families.

    Features wider than 512 are first laid into 512 axes at random, which keeps angles.
    """
    width = families[0].shape[1]
    if width > MAX_WIDTH:
        laid = np.random.default_rng(_SEED).normal(size=(width, MAX_WIDTH)) / np.sqrt(MAX_WIDTH)
    else:
        laid = np.eye(width)
    rows = [family.astype(np.float64) @ laid for family in families]
    within = np.concatenate([row - row.mean(0) for row in rows])
    spread = within.std(0) + _LEAST
    scaled = within / spread
    covariance = scaled.T @ scaled / max(1, len(scaled) - 1)
    # Few pictures tell little of directions in which they hardly differ.
    ridge = _SHRINKAGE * float(np.trace(covariance)) / len(covariance) + 1e-9
    values, axes = np.linalg.eigh(covariance + ridge * np.eye(len(covariance)))
    return Whitening(
        centre=np.concatenate(families).astype(np.float64).mean(0),
        axes=laid @ (axes / (spread[:, None] * np.sqrt(values))),
    )
