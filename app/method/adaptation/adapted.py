"""What every way of changing a frozen backbone has in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.errors import JSON, InvalidInputError
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.evaluation.conditions import Applied
from app.method.steering.vectors import InContextVectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """What a method may use.

    Attributes:
        validation: Labelled items that only choose: layers, rates, when to stop.
        shots: Demonstrations before a query wherever a method reads some; fewer items are all
            taken.
    """

    backbone: Backbone
    items: Sequence[Example]
    validation: Sequence[Example]
    features: FeatureCache
    shots: int = 16
    seed: int = 0
    token_budget: int = 8192
    max_steps: int = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class Adaptation:
    """A fitted change of the backbone.

    Attributes:
        kind: What is done to it: `shift`, `last-token`, `direction`, `scaled-context`,
            `normed-shift`, `gated-heads`, `low-rank`, `virtual-keys`.
        vectors: The same as in-context vectors, if it is nothing but a shift.
        notes: What was chosen on validation, in JSON values.
    """

    kind: str
    num_parameters: int
    applied: Applied
    vectors: InContextVectors | None = None
    notes: dict[str, JSON] = field(default_factory=dict)

    def to_vectors(self) -> InContextVectors:
        """The vectors to store and serve.

        Raises:
            InvalidInputError: The change is no plain addition at every token, which is all that a
                stored vector can carry.
        """
        if self.vectors is None:
            raise InvalidInputError(
                f"This cannot be stored or served as a vector: wanted the kind shift, found "
                f"{self.kind}",
                details={"wanted": "shift", "found": self.kind},
            )
        return self.vectors
