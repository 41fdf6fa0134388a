"""Short trainings of a tiny backbone."""

from collections.abc import Sequence
from typing import Any

import torch

from app.method.steering.vectors import TENSOR_NAMES
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import TrainingResult
from tests.fakes.models.backbones import tiny_examples

EXAMPLES = tiny_examples(40)


CONFIG = TrainingConfig(
    shots=2,
    num_queries=8,
    contexts_per_query=2,
    epochs=3,
    batch_size=4,
    held_out_fraction=0.25,
    min_held_out=0,
    cross_fit_below=0,
    evaluate_every=2,
    trial_steps=0,
    checkpoint_every=1,
    report_every=1,
    token_budget=2000,
    # The teacher of a random backbone is hardly ever right.
    mimicry_of="all",
)


FEW = CONFIG.changed(cross_fit_below=1000, epochs=None, max_steps=6)


class MemoryStore:
    """Keeps every checkpoint; a run goes on from the last one."""

    def __init__(self, saved: Sequence[bytes] = ()) -> None:
        self.saved = list(saved)

    def kept(self) -> dict[str, Any]:
        last = self.saved[-1] if self.saved else None
        return {"checkpoint": last, "on_checkpoint": self.saved.append}


def same_vectors(first: TrainingResult, second: TrainingResult) -> bool:
    return all(
        torch.equal(getattr(first.vectors, name), getattr(second.vectors, name))
        for name in TENSOR_NAMES
    )
