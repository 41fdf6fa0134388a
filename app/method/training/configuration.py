"""How a training run is to be done, in values that survive a round trip through JSON.

They come from HTTP, from argv and from stored jobs.
"""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.core.errors import JSON, InvalidInputError

MAX_SEED: Final = 2**31 - 1
MAX_INSTRUCTION_CHARACTERS: Final = 4000
_MOST_TOLD: Final = 10
_LONGEST_TOLD: Final = 40


def _unknown_names(values: Iterable[str], known: Iterable[str]) -> str | None:
    """What there is to say of settings that are not known, with what may be meant."""
    known = list(known)
    # They come from strangers, who may send many and long ones.
    unknown = [name[:_LONGEST_TOLD] for name in values if name not in known][:_MOST_TOLD]
    if not unknown:
        return None
    unknown.sort()
    near = (get_close_matches(name, known, n=1) for name in unknown)
    meant = ", ".join(sorted({one for found in near for one in found}))
    return f"Unknown training settings: {', '.join(unknown)}" + f" ({meant}?)" * bool(meant)


class TrainingSettings(BaseModel):
    """Settings of one training run beside its shots."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
    )

    num_queries: Annotated[int, Field(ge=1, le=100_000)] = 384
    """Most items the vectors are trained on."""
    contexts_per_query: Annotated[int, Field(ge=1, le=64)] = 2
    """Draws of demonstrations a query; epochs take them in turn, and every second one repeats the
    one before it in another order.
    """
    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 600
    """Optimiser steps, unless `epochs` are fewer."""
    epochs: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """Most passes over the queries; None leaves it to the steps."""
    augmented_views: Annotated[int, Field(ge=0, le=64)] = 0
    """Copies of each picture, slightly turned, scaled and moved, that queries are shown with in
    turn, an epoch each, beside the picture as it is.
    """
    trial_steps: Annotated[int, Field(ge=0, le=100_000)] = 20
    """Steps of each short run that compares weights of the losses by held-out items before the run
    proper; 0 keeps them as they are given.
    """
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Most queries an optimiser step; small sets take a sixth of their queries, at least 8."""
    vector_learning_rate: Annotated[float, Field(ge=1e-8, le=10.0)] = 1e-1
    """Of the vectors, at its peak."""
    weight_learning_rate: Annotated[float, Field(ge=0.0, le=10.0)] = 1e-2
    """Of the layer weights, at its peak, in units of what they start with."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 1e-3
    """Of AdamW."""
    warmup_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.03
    """Share of the steps in which learning rates rise; from there they fall as a cosine to 0."""
    clip_norm: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """Most length of the whole gradient."""
    mimicry_weight: Annotated[float, Field(ge=0.0, le=1e4)] = 1.0
    """Of the divergence from the teacher."""
    synergy_weight: Annotated[float, Field(ge=0.0, le=1e4)] = 1.0
    """Of the correlation of the two branches."""
    supervision_weight: Annotated[float, Field(ge=0.0, le=1e4)] = 0.5
    """Of the true answer's cross-entropy."""
    mimicry_of: Literal["all", "right"] = "right"
    """Whether the teacher is followed in every episode or only where its answer is the true one; a
    wrong teacher would teach its mistakes.
    """
    synergy_share: Annotated[float, Field(ge=0.0, le=1e4)] = 0.1
    """Most length of the synergy gradient, as a share of the other losses' gradient. The loss does
    not depend on the vectors' lengths, so without a bound its gradient drowns the others while
    the vectors are short, and they hardly move.
    """
    synergy_gamma: Annotated[float, Field(ge=0.0, le=1e4)] = 1e-3
    """Weight of pairs of different layers in the synergy loss."""
    temperature: Annotated[float, Field(ge=0.05, le=100.0)] = 1.0
    """Of the mimicry loss."""
    teacher_top_k: Annotated[int, Field(ge=256, le=1_000_000)] = 256
    """Outcomes kept of the teacher where the vocabulary is large."""
    token_budget: Annotated[int, Field(ge=64, le=10_000_000)] = 8192
    """Most tokens of one forward pass."""
    held_out_fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.1
    """Share of the pictures that only measure; 0 measures nothing."""
    min_held_out: Annotated[int, Field(ge=0, le=100_000)] = 100
    """Items that measure at least, as long as they are no more than a quarter."""
    max_held_out: Annotated[int, Field(ge=0, le=100_000)] = 200
    """Most items measured on."""
    cross_fit_below: Annotated[int, Field(ge=0, le=100_000)] = 256
    """With fewer items than this, all of them teach and all of them measure: each is measured by
    vectors of its own that have not seen it nor its neighbours.
    """
    evaluate_every: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Steps between measurements."""
    keep: Literal["best", "last"] = "best"
    """Whether the vectors of the best measurement or of the last step are returned. Without
    held-out items it is the last step.
    """
    branches: Literal["both", "attention", "mlp"] = "both"
    """Which branches are shifted; one alone is an ablation."""
    instruction: Annotated[str | None, Field(max_length=MAX_INSTRUCTION_CHARACTERS)] = None
    """Said at the start of every prompt."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    checkpoint_every: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Steps between checkpoints."""
    report_every: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    """Steps between reports."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Of every draw."""

    @model_validator(mode="before")
    @classmethod
    def _know_every_name(cls, values: object) -> object:
        if isinstance(values, Mapping) and (told := _unknown_names(values, cls.model_fields)):
            raise ValueError(told)
        return values

    @model_validator(mode="after")
    def _learn_from_something(self) -> "TrainingSettings":
        if not self.mimicry_weight + self.supervision_weight:
            raise ValueError("mimicry_weight or supervision_weight above 0")
        return self


class TrainingConfig(TrainingSettings):
    """Settings of one training run."""

    shots: Annotated[int, Field(ge=1, le=64)] = 16
    """Demonstrations before each query of the teacher, or as many as there are."""

    def changed(self, /, **values: Any) -> "TrainingConfig":  # noqa: ANN401 - of several types
        """The same settings but for these.

        Raises:
            InvalidInputError: A name is unknown or a value is out of its range.
        """
        return self.from_dict({**self.model_dump(), **values})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingConfig":
        """The settings with these values, the defaults elsewhere.

        Raises:
            InvalidInputError: A name is unknown or a value is out of its range.
        """
        if told := _unknown_names(values, cls.model_fields):
            unknown = sorted(values.keys() - cls.model_fields)
            raise InvalidInputError(told, details={"unknown": unknown})
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        if not first["loc"]:
            raise InvalidInputError(f"Nothing to learn from: wanted {wanted}")
        name = str(first["loc"][0])
        raise InvalidInputError(
            f"Training setting {name} is out of range: wanted {wanted}",
            details={"setting": name, "wanted": wanted},
        )


def read_settings(texts: Iterable[str]) -> dict[str, JSON]:
    """Settings that are written NAME=VALUE, each value as JSON or as it stands.

    Raises:
        InvalidInputError: One is not written so, or given twice.
    """
    found: dict[str, JSON] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"Cannot read the setting: wanted NAME=VALUE, found {text}")
        if name in found:
            raise InvalidInputError(f"The setting {name} is given twice")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
