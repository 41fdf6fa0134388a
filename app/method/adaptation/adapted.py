"""What every way of changing a frozen backbone has in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.errors import JSON
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.evaluation.conditions import Applied


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
        kind: What is done to it: `last-token`, `direction`, `scaled-context`, `normed-shift`,
            `gated-heads`, `low-rank`, `virtual-keys`; none is a shift that a vector could carry.
        notes: What was chosen on validation, in JSON values.
    """

    kind: str
    num_parameters: int
    applied: Applied
    notes: dict[str, JSON] = field(default_factory=dict)
