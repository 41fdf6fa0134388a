"""What the backbone predicts with demonstrations before the query, computed once and kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from app.method.backbone.batching import token_batches
from app.method.backbone.examples import Lesson
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.steering.injection import ShiftHooks
from app.method.training.losses import TeacherLogits, supervision_by_token
from app.method.training.progress import Reporter, Steps
from app.method.training.prompts import see, write_prompts

# Below this size a vocabulary is kept whole: abridging would save little and lose exactness.
SMALL_VOCABULARY: Final = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherCache:
    """The teacher's predictions for the answer tokens of every lesson.

    Attributes:
        starts: Where each lesson starts in them, and where the last one ends.
    """

    logits: TeacherLogits
    starts: tuple[int, ...]
    is_right: tuple[bool, ...]

    @property
    def accuracy(self) -> float:
        """Share of lessons the teacher answers right."""
        return sum(self.is_right) / max(1, len(self.is_right))

    def on(self, device: torch.device) -> "TeacherCache":
        """The same predictions in a device's memory."""
        indices = self.logits.indices
        logits = TeacherLogits(
            log_probs=self.logits.log_probs.to(device),
            indices=None if indices is None else indices.to(device),
        )
        return replace(self, logits=logits)

    def rows(self, lessons: Sequence[int]) -> TeacherLogits:
        """The predictions of these lessons, in this order."""
        places = [
            place
            for lesson in lessons
            for place in range(self.starts[lesson], self.starts[lesson + 1])
        ]
        device = self.logits.log_probs.device
        return self.logits.rows(torch.tensor(places, dtype=torch.long, device=device))


def answer_logits(backbone: Backbone, batch: EncodedBatch) -> Float[Tensor, "answers vocab"]:
    """Logits at the positions that predict answer tokens, row after row; no others are computed."""
    output = backbone.model(
        **batch.inputs, logits_to_keep=batch.predicts_answer, use_cache=False, return_dict=True
    )
    logits = cast("Tensor", output.logits)
    return logits.reshape(-1, logits.shape[-1])


def rows_right(logits: Float[Tensor, "answers vocab"], batch: EncodedBatch) -> tuple[bool, ...]:
    """Whether greedy decoding would give each row exactly its answer and then end the turn.

    If the most likely token is right at every position of the given answer, decoding one token
    after the other takes the same way; so one pass measures what generation would.
    """
    hits: Bool[Tensor, " answers"] = logits.argmax(-1) == batch.targets
    counts = [len(ids) for ids in batch.answer_ids]
    return tuple(bool(row.all()) for row in torch.split(hits, counts))


@dataclass(frozen=True, kw_only=True)
class Answered:
    """How the backbone answered one lesson by itself.

    Attributes:
        loss: Mean cross-entropy of the true answer's tokens.
        num_tokens: Length of the prompt, image tokens included.
    """

    is_right: bool
    loss: float
    num_tokens: int


def answer_lessons(
    backbone: Backbone,
    lessons: Sequence[Lesson],
    *,
    features: FeatureCache,
    token_budget: int,
    max_rows: int,
    instruction: str | None = None,
    shifts: Float[Tensor, "rows layers 2 hidden"] | None = None,
    reporter: Reporter | None = None,
) -> Steps[list[Answered]]:
    """How the backbone answers each lesson by itself, with or without a shift.

    There is one shift for each lesson or one for all.

    Raises:
        JobCancelledError: The reporter was asked to stop.
        SteeringError: The shift could not be applied in full.
    """
    prompts, lengths = yield from write_prompts(backbone, lessons, instruction, features=features)
    found: dict[int, Answered] = {}
    hooks = ShiftHooks(backbone)
    try:
        for batch in token_batches(lengths, token_budget=token_budget, max_rows=max_rows):
            yield from see([prompts[index] for index in batch], features=features)
            with torch.no_grad():
                answers = [lessons[index].query.answer for index in batch]
                encoded = features.encode([prompts[index] for index in batch], answers=answers)
                is_shared = shifts is None or len(shifts) == 1
                receipt = hooks.bind(shifts if shifts is None or is_shared else shifts[batch])
                logits = answer_logits(backbone, encoded)
                if shifts is not None:
                    receipt.verify()
                hooks.bind(None)
                found.update(zip(batch, _answered(logits, encoded), strict=True))
            if reporter is None:
                yield None
            else:
                yield from reporter.advance(len(batch))
    finally:
        hooks.remove()
    return [found[index] for index in range(len(lessons))]


def _answered(logits: Float[Tensor, "answers vocab"], batch: EncodedBatch) -> list[Answered]:
    losses = supervision_by_token(logits, batch.targets)
    spans = torch.split(losses, [len(ids) for ids in batch.answer_ids])
    rows = zip(rows_right(logits, batch), spans, batch.num_prompt_tokens, strict=True)
    return [
        Answered(is_right=is_right, loss=span.mean().item(), num_tokens=num_tokens)
        for is_right, span, num_tokens in rows
    ]


def compute_teacher(
    backbone: Backbone,
    lessons: Sequence[Lesson],
    *,
    features: FeatureCache,
    temperature: float,
    top_k: int,
    token_budget: int,
    max_rows: int,
    instruction: str | None = None,
    reporter: Reporter | None = None,
) -> Steps[TeacherCache]:
    """The teacher's predictions for every lesson, in the CPU's memory.

    Of a large vocabulary `top_k` outcomes are kept; a small one is kept whole.

    Raises:
        JobCancelledError: The reporter was asked to stop.
    """
    prompts, lengths = yield from write_prompts(backbone, lessons, instruction, features=features)
    parts: list[tuple[TeacherLogits, bool] | None] = [None] * len(lessons)
    for batch in token_batches(lengths, token_budget=token_budget, max_rows=max_rows):
        yield from see([prompts[index] for index in batch], features=features)
        with torch.no_grad():
            answers = [lessons[index].query.answer for index in batch]
            encoded = features.encode([prompts[index] for index in batch], answers=answers)
            logits = answer_logits(backbone, encoded)
            kept = 0 if logits.shape[-1] <= SMALL_VOCABULARY else top_k
            whole = TeacherLogits.from_logits(logits, temperature=temperature, top_k=kept)
            places = torch.arange(len(logits), device=logits.device)
            spans = torch.split(places, [len(ids) for ids in encoded.answer_ids])
            found = rows_right(logits, encoded)
            for index, span, is_right in zip(batch, spans, found, strict=True):
                parts[index] = (whole.rows(span), is_right)
        if reporter is None:
            yield None
        else:
            yield from reporter.advance(len(batch))
    return _joined([part for part in parts if part is not None]).on(torch.device("cpu"))


def _joined(parts: Sequence[tuple[TeacherLogits, bool]]) -> TeacherCache:
    starts = [0]
    for logits, _ in parts:
        starts.append(starts[-1] + len(logits.log_probs))
    indices: list[Int[Tensor, "answers kept"]] = [
        logits.indices for logits, _ in parts if logits.indices is not None
    ]
    return TeacherCache(
        logits=TeacherLogits(
            log_probs=torch.cat([logits.log_probs for logits, _ in parts]),
            indices=torch.cat(indices) if indices else None,
        ),
        starts=tuple(starts),
        is_right=tuple(is_right for _, is_right in parts),
    )
