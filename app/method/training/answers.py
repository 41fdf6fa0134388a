"""How the backbone answers episodes, with or without a shift, read off passes with the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.backbone.batching import MAX_ROWS
from app.method.backbone.examples import Episode
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.steering.injection import ShiftHooks
from app.method.training.losses import supervision
from app.method.training.progress import Reporter, Steps
from app.method.training.prompts import run_batches


def answer_logits(backbone: Backbone, batch: EncodedBatch) -> Float[Tensor, "answers vocab"]:
    """Logits at the positions that predict answer tokens, row after row; no others are computed."""
    output = backbone.model(
        **batch.inputs, logits_to_keep=batch.predicts_answer, use_cache=False, return_dict=True
    )
    logits = cast("Tensor", output.logits)
    return logits.reshape(-1, logits.shape[-1])


def rows_right(
    backbone: Backbone, logits: Float[Tensor, "answers vocab"], batch: EncodedBatch
) -> tuple[bool, ...]:
    """Whether greedy decoding would give each row exactly its answer and then end the turn.

    If the most likely token is right at every position of the given answer, decoding one token
    after the other takes the same way; so one pass measures what generation would. Any token that
    ends a generation is right at the end.
    """
    said = iter(logits.argmax(-1).tolist())
    rows = [(tuple(islice(said, len(ids))), ids) for ids in batch.answer_ids]
    return tuple(
        found[:-1] == ids[:-1] and found[-1] in backbone.eos_token_ids for found, ids in rows
    )


@dataclass(frozen=True, kw_only=True)
class AnswerScore:
    """How well the backbone answered one episode.

    Attributes:
        loss: Mean cross-entropy of the true answer's tokens.
        num_tokens: Length of the prompt, image tokens included.
    """

    is_right: bool
    loss: float
    num_tokens: int


def answer_episodes(
    features: FeatureCache,
    episodes: Sequence[Episode],
    *,
    token_budget: int,
    max_rows: int = MAX_ROWS,
    instruction: str | None = None,
    shifts: Float[Tensor, "rows layers 2 hidden"] | None = None,
    reporter: Reporter | None = None,
) -> Steps[list[AnswerScore]]:
    """How the backbone answers each episode by itself, with or without a shift.

    There is one shift for each episode or one for all.

    Raises:
        JobCancelledError: The reporter was asked to stop.
        SteeringError: The shift could not be applied in full.
    """
    found: dict[int, AnswerScore] = {}
    hooks = ShiftHooks(features.backbone.model)

    def run(places: Sequence[int], batch: EncodedBatch) -> None:
        is_shared = shifts is None or len(shifts) == 1
        with hooks.applied(shifts if shifts is None or is_shared else shifts[list(places)]):
            logits = answer_logits(features.backbone, batch)
        found.update(zip(places, score_answers(features.backbone, logits, batch), strict=True))

    try:
        yield from run_batches(
            features,
            episodes,
            run,
            token_budget=token_budget,
            max_rows=max_rows,
            instruction=instruction,
            reporter=reporter,
        )
    finally:
        hooks.remove()
    return [found[index] for index in range(len(episodes))]


def score_answers(
    backbone: Backbone, logits: Float[Tensor, "answers vocab"], batch: EncodedBatch
) -> list[AnswerScore]:
    """How well each row is answered, by the logits that predict its true answer."""
    losses = supervision(logits, batch.targets).cpu()
    spans = torch.split(losses, [len(ids) for ids in batch.answer_ids])
    are_right = rows_right(backbone, logits, batch)
    rows = zip(are_right, spans, batch.num_prompt_tokens, strict=True)
    return [
        AnswerScore(is_right=is_right, loss=span.mean().item(), num_tokens=num_tokens)
        for is_right, span, num_tokens in rows
    ]
