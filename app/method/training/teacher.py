"""What the backbone predicts with demonstrations before the query, computed once and kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

import torch

from app.method.backbone.batching import MAX_ROWS
from app.method.backbone.examples import Episode
from app.method.backbone.features import FeatureCache
from app.method.backbone.prompts import EncodedBatch
from app.method.training.answers import answer_logits, rows_right
from app.method.training.losses import TeacherLogProbs
from app.method.training.progress import Reporter, Steps
from app.method.training.prompts import run_batches

# Below this size a vocabulary is kept whole: abridging would save little and lose exactness.
SMALL_VOCABULARY: Final = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherCache:
    """The teacher's predictions for the answer tokens of every episode.

    Attributes:
        starts: Where each episode starts in them, and where the last one ends.
    """

    predictions: TeacherLogProbs
    starts: tuple[int, ...]
    is_right: tuple[bool, ...]

    @property
    def accuracy(self) -> float:
        """Share of episodes the teacher answers right."""
        return sum(self.is_right) / max(1, len(self.is_right))

    def on(self, device: torch.device) -> "TeacherCache":
        """The same predictions in a device's memory."""
        indices = self.predictions.indices
        predictions = TeacherLogProbs(
            log_probs=self.predictions.log_probs.to(device),
            indices=None if indices is None else indices.to(device),
        )
        return replace(self, predictions=predictions)

    def rows(self, episodes: Sequence[int]) -> TeacherLogProbs:
        """The predictions of these episodes, in this order."""
        places = [
            place
            for episode in episodes
            for place in range(self.starts[episode], self.starts[episode + 1])
        ]
        device = self.predictions.log_probs.device
        return self.predictions.rows(torch.tensor(places, dtype=torch.long, device=device))


def compute_teacher(
    features: FeatureCache,
    episodes: Sequence[Episode],
    *,
    temperature: float,
    top_k: int,
    token_budget: int,
    max_rows: int = MAX_ROWS,
    instruction: str | None = None,
    reporter: Reporter | None = None,
) -> Steps[TeacherCache]:
    """The teacher's predictions for every episode, in the CPU's memory.

    Of a large vocabulary `top_k` outcomes are kept; a small one is kept whole.

    Raises:
        JobCancelledError: The reporter was asked to stop.
    """
    parts: dict[int, tuple[TeacherLogProbs, bool]] = {}

    def run(places: Sequence[int], batch: EncodedBatch) -> None:
        logits = answer_logits(features.backbone, batch)
        kept = 0 if logits.shape[-1] <= SMALL_VOCABULARY else top_k
        whole = TeacherLogProbs.from_logits(logits, temperature=temperature, top_k=kept)
        tokens = torch.arange(len(logits), device=logits.device)
        spans = torch.split(tokens, [len(ids) for ids in batch.answer_ids])
        found = rows_right(features.backbone, logits, batch)
        for place, span, is_right in zip(places, spans, found, strict=True):
            parts[place] = (whole.rows(span), is_right)

    yield from run_batches(
        features,
        episodes,
        run,
        token_budget=token_budget,
        max_rows=max_rows,
        instruction=instruction,
        reporter=reporter,
    )
    logits, is_right = zip(*(parts[place] for place in range(len(episodes))), strict=True)
    indices = [one.indices for one in logits if one.indices is not None]
    cache = TeacherCache(
        predictions=TeacherLogProbs(
            log_probs=torch.cat([one.log_probs for one in logits]),
            indices=torch.cat(indices) if indices else None,
        ),
        starts=tuple(accumulate((len(one.log_probs) for one in logits), initial=0)),
        is_right=is_right,
    )
    return cache.on(torch.device("cpu"))
