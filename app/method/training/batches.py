"""From queries that sets of vectors learn from to what goes through the backbone together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from app.method.backbone.batching import prompt_batches
from app.method.backbone.examples import Episode
from app.method.backbone.features import FeatureCache
from app.method.backbone.prompts import EncodedBatch, PromptText
from app.method.training.augmentation import augmented
from app.method.training.configuration import TrainingConfig
from app.method.training.progress import Steps
from app.method.training.prompts import prepare_pictures, write_prompts
from app.method.training.teacher import TeacherCache

Row: TypeAlias = tuple[int, int]
"""The number of an episode whose query is learnt from, and the set of vectors that learns it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StudentBatch:
    """Rows that go through the backbone together.

    Attributes:
        episodes: Number of the episode of each row.
        is_taught: Whether the teacher is to be mimicked at each answer token.
    """

    batch: EncodedBatch
    episodes: list[int]
    row_sets: Int[Tensor, " rows"]
    token_sets: Int[Tensor, " answers"]
    is_taught: Bool[Tensor, " answers"]


class StudentBatches:
    """Encodes queries without their demonstrations; each prompt is written once."""

    def __init__(
        self,
        features: FeatureCache,
        config: TrainingConfig,
        *,
        episodes: Sequence[Episode],
        teacher: TeacherCache,
        num_sets: int,
    ) -> None:
        self._config = config
        self._teacher = teacher
        self._episodes = episodes
        self._num_sets = num_sets
        self._features = features
        self._prompts: dict[int, tuple[PromptText, int]] = {}

    def prepare(self, rows: Sequence[Row], *, view: int) -> Steps[None]:
        """Writes the rows' prompts and prepares this view of their pictures for `parts`."""
        yield from self._write_prompts(rows)
        prompts, _ = self._shown(rows, view=view)
        yield from prepare_pictures(prompts, features=self._features)

    def parts(self, rows: Sequence[Row], *, view: int) -> Iterator[StudentBatch]:
        """The batch in passes that fit the budget, each encoded when its turn comes."""
        prompts, lengths = self._shown(rows, view=view)
        budget = self._config.token_budget
        device = self._features.backbone.device
        for places in prompt_batches(
            prompts, lengths, features=self._features, token_budget=budget, max_rows=len(rows)
        ):
            episodes = [rows[place][0] for place in places]
            answers = [self._episodes[number].query.answer for number in episodes]
            batch = self._features.encode([prompts[place] for place in places], answers=answers)
            counts = torch.tensor([len(ids) for ids in batch.answer_ids])
            sets = torch.tensor([rows[place][1] for place in places])
            is_taught = torch.tensor([self._is_taught(number) for number in episodes])
            yield StudentBatch(
                batch=batch,
                episodes=episodes,
                row_sets=sets.to(device),
                token_sets=sets.repeat_interleave(counts).to(device),
                is_taught=is_taught.repeat_interleave(counts).to(device),
            )

    def counts(self, rows: Sequence[Row]) -> tuple[Int[Tensor, " sets"], Int[Tensor, " sets"]]:
        """Answer tokens of each set, and those at which it mimics the teacher; at least one."""
        found = torch.zeros(2, self._num_sets, dtype=torch.long)
        starts = self._teacher.starts
        for number, one in rows:
            tokens = starts[number + 1] - starts[number]
            found[0, one] += tokens
            found[1, one] += tokens * self._is_taught(number)
        every, taught = found.clamp_min(1).to(self._features.backbone.device)
        return every, taught

    def _is_taught(self, number: int) -> bool:
        return self._config.mimicry_of == "all" or self._teacher.is_right[number]

    def _shown(self, rows: Sequence[Row], *, view: int) -> tuple[list[PromptText], list[int]]:
        """The rows' prompts with this view of their pictures, and how long they are."""
        written = [self._prompts[number] for number, _ in rows]
        prompts = [
            replace(prompt, images=tuple(augmented(image, view) for image in prompt.images))
            for prompt, _ in written
        ]
        return prompts, [length for _, length in written]

    def _write_prompts(self, rows: Sequence[Row]) -> Steps[None]:
        """Writes the prompts of queries that were not seen before; epochs repeat them."""
        fresh = dict.fromkeys(number for number, _ in rows if number not in self._prompts)
        if not fresh:
            return
        prompts, lengths = yield from write_prompts(
            self._features,
            [Episode(query=self._episodes[number].query) for number in fresh],
            self._config.instruction,
        )
        self._prompts.update(zip(fresh, zip(prompts, lengths, strict=True), strict=True))
