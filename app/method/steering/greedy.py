"""Greedy answers, a batch at a time, steered or not."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import takewhile
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

from app.method.backbone.chat import as_written
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.steering.injection import Shifts, inject


@torch.inference_mode()
def generate_encoded(
    backbone: Backbone,
    batch: EncodedBatch,
    *,
    shifts: Shifts | None = None,
    max_new_tokens: int = 32,
) -> list[tuple[int, ...]]:
    """The ids of answers to encoded prompts, padded on the left, without the token that ends each.

    There is one shift for each prompt or one for all; None leaves the backbone unsteered.

    Raises:
        SteeringError: The shifts could not be applied in full.
    """
    run = cast("Callable[..., Any]", backbone.model.generate)
    with nullcontext() if shifts is None else inject(backbone.model, shifts):
        sequences: Int[Tensor, "rows tokens"] = run(
            **batch.inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=list(backbone.eos_token_ids),
            pad_token_id=backbone.tokenizer.pad_token_id,
        )
    generated = sequences[:, batch.inputs["input_ids"].shape[1] :].tolist()
    ends = set(backbone.eos_token_ids)
    return [tuple(takewhile(lambda one: one not in ends, ids)) for ids in generated]


def answer_text(backbone: Backbone, token_ids: Sequence[int]) -> str:
    """The answer that these ids write, without control tokens and the space before it."""
    text = backbone.tokenizer.decode(list(token_ids), skip_special_tokens=True)
    return as_written(str(text)).lstrip()
