"""How a training run is to be done, in values that survive a round trip through JSON.

Knows bounds; knows no tensors.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from app.core.errors import JSON, InvalidInputError

_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "shots": (1, 64),
    "num_queries": (1, 100_000),
    "contexts_per_query": (1, 64),
    "max_steps": (1, 1_000_000),
    "min_steps": (0, 1_000_000),
    "patience": (1, 1_000_000),
    "trial_steps": (0, 100_000),
    "epochs": (1, 10_000),
    "batch_size": (1, 4096),
    "vector_learning_rate": (1e-8, 10.0),
    "weight_learning_rate": (0.0, 10.0),
    "weight_decay": (0.0, 10.0),
    "warmup_fraction": (0.0, 1.0),
    "clip_norm": (1e-6, 1e6),
    "mimicry_weight": (0.0, 1e4),
    "synergy_weight": (0.0, 1e4),
    "supervision_weight": (0.0, 1e4),
    "synergy_share": (0.0, 1e4),
    "synergy_gamma": (0.0, 1e4),
    "temperature": (0.05, 100.0),
    "teacher_top_k": (256, 1_000_000),
    "token_budget": (64, 10_000_000),
    "held_out_fraction": (0.0, 0.9),
    "min_held_out": (0, 100_000),
    "max_held_out": (0, 100_000),
    "cross_fit_below": (0, 100_000),
    "evaluate_every": (1, 1_000_000),
    "checkpoint_every": (1, 1_000_000),
    "report_every": (1, 1_000_000),
    "seed": (0, 2**31 - 1),
}
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "keep": ("best", "last"),
    "mimicry_of": ("all", "right"),
    "branches": ("both", "attention", "mlp"),
}
_MOST_INSTRUCTION_CHARACTERS: Final = 4000


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of one training run.

    Attributes:
        shots: Demonstrations before each query of the teacher, or as many as there are.
        num_queries: Most items the vectors are trained on.
        contexts_per_query: Draws of demonstrations a query; epochs take them in turn, and every
            second one repeats the one before it in another order.
        max_steps: Most optimiser steps.
        min_steps: Fewest steps before held-out items may end the run.
        patience: Measurements without improvement after which the learning rates are cut to a
            quarter, and after which, once more, the run ends.
        trial_steps: Steps of each short run that compares weights of the losses and the rate by
            held-out items before the run proper; 0 keeps both as they are given.
        epochs: Most passes over the queries; None leaves it to the steps.
        batch_size: Most queries an optimiser step; small sets take an eighth of their queries, at
            least 8 and, where every item measures, at most 16.
        vector_learning_rate: Of the vectors, at its peak.
        weight_learning_rate: Of the layer weights, at its peak.
        weight_decay: Of AdamW.
        warmup_fraction: Share of the most steps in which learning rates rise.
        clip_norm: Most length of the whole gradient.
        mimicry_weight: Of the divergence from the teacher.
        synergy_weight: Of the correlation of the two branches.
        supervision_weight: Of the true answer's cross-entropy.
        mimicry_of: Whether the teacher is followed in every lesson or only where its answer is the
            true one; a wrong teacher would teach its mistakes.
        synergy_share: Most length of the synergy gradient, as a share of the other losses'
            gradient. The loss does not depend on the vectors' lengths, so without a bound its
            gradient drowns the others while the vectors are short, and they hardly move.
        synergy_gamma: Weight of pairs of different layers in the synergy loss.
        temperature: Of the mimicry loss.
        teacher_top_k: Outcomes kept of the teacher where the vocabulary is large.
        token_budget: Most tokens of one forward pass.
        held_out_fraction: Share of the pictures that only measure; 0 measures nothing.
        min_held_out: Items that measure at least, as long as they are no more than a quarter.
        max_held_out: Most items measured on.
        cross_fit_below: With fewer items than this, all of them teach and all of them measure:
            each is measured by vectors of its own that have not seen it nor its neighbours.
        evaluate_every: Steps between measurements.
        keep: Whether the vectors of the best measurement or of the last step are returned. Without
            held-out items it is the last step.
        branches: Which branches are shifted; one alone is an ablation.
        instruction: Said at the start of every prompt.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        checkpoint_every: Steps between checkpoints.
        report_every: Steps between reports.
        seed: Of every draw.
    """

    shots: int = 16
    num_queries: int = 384
    contexts_per_query: int = 2
    max_steps: int = 600
    min_steps: int = 60
    patience: int = 2
    trial_steps: int = 20
    epochs: int | None = None
    batch_size: int = 32
    vector_learning_rate: float = 3e-2
    weight_learning_rate: float = 3e-2
    weight_decay: float = 1e-3
    warmup_fraction: float = 0.03
    clip_norm: float = 1.0
    mimicry_weight: float = 1.0
    synergy_weight: float = 1.0
    supervision_weight: float = 0.5
    mimicry_of: Literal["all", "right"] = "right"
    synergy_share: float = 0.1
    synergy_gamma: float = 1e-3
    temperature: float = 1.0
    teacher_top_k: int = 256
    token_budget: int = 8192
    held_out_fraction: float = 0.1
    min_held_out: int = 100
    max_held_out: int = 200
    cross_fit_below: int = 256
    evaluate_every: int = 20
    keep: Literal["best", "last"] = "best"
    branches: Literal["both", "attention", "mlp"] = "both"
    instruction: str | None = None
    gradient_checkpointing: bool = False
    checkpoint_every: int = 50
    report_every: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses values that no run could use.

        Raises:
            InvalidInputError: A value is out of its range or of another type.
        """
        for field in fields(self):
            _check(field.name, field.type, getattr(self, field.name))
        if not self.mimicry_weight + self.supervision_weight:
            raise InvalidInputError(
                "Nothing to learn from: wanted mimicry_weight or supervision_weight above 0"
            )

    def to_dict(self) -> dict[str, JSON]:
        """The settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingConfig":
        """The settings with these values, the defaults elsewhere.

        Raises:
            InvalidInputError: A name is unknown or a value is out of its range.
        """
        kinds = {field.name: field.type for field in fields(cls)}
        unknown = sorted(set(values) - set(kinds))
        if unknown:
            raise InvalidInputError(
                f"Unknown training settings: {', '.join(unknown)}", details={"unknown": unknown}
            )
        for name, value in values.items():
            _check(name, kinds[name], value)
        # JSON does not tell 1 from 1.0.
        numbers = {name: float(value) for name, value in values.items() if kinds[name] is float}
        return cls(**{**values, **numbers})


def _refuse(name: str, wanted: str) -> InvalidInputError:
    return InvalidInputError(
        f"Training setting {name} is out of range: wanted {wanted}",
        details={"setting": name, "wanted": wanted},
    )


def _check(name: str, kind: object, value: object) -> None:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise _refuse(name, " or ".join(_CHOICES[name]))
    elif name == "instruction":
        if value is not None and not (
            isinstance(value, str) and len(value) <= _MOST_INSTRUCTION_CHARACTERS
        ):
            raise _refuse(name, f"text of at most {_MOST_INSTRUCTION_CHARACTERS} characters")
    elif name == "epochs" and value is None:
        return
    elif kind is bool:
        if not isinstance(value, bool):
            raise _refuse(name, "true or false")
    else:
        _check_number(name, value, whole=kind is not float)


def _check_number(name: str, value: object, *, whole: bool) -> None:
    low, high = _BOUNDS[name]
    numeric = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    # Comparing this way round refuses NaN.
    if not numeric or not low <= float(str(value)) <= high:
        raise _refuse(name, f"a {'whole ' if whole else ''}number from {low:g} to {high:g}")
