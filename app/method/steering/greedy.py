"""Greedy answers in text, a batch at a time, steered or not."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Int
from torch import Tensor

from app.method.backbone.chat import as_written
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.steering.injection import Shifts, inject


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What the backbone answered to one prompt.

    Attributes:
        text: The answer without control tokens and the space before it.
        token_ids: What was generated, without padding and without the token that ended it.
        finish_reason: `stop` when the backbone ended its turn, `length` when it ran out of tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    num_prompt_tokens: int


def _read(backbone: Backbone, ids: Sequence[int], num_prompt_tokens: int) -> Generation:
    ends = set(backbone.eos_token_ids)
    stop = next((index for index, token_id in enumerate(ids) if token_id in ends), None)
    kept = tuple(ids if stop is None else ids[:stop])
    return Generation(
        text=as_written(
            str(backbone.tokenizer.decode(list(kept), skip_special_tokens=True))
        ).lstrip(),
        token_ids=kept,
        finish_reason="length" if stop is None else "stop",
        num_prompt_tokens=num_prompt_tokens,
    )


@torch.inference_mode()
def generate_encoded(
    backbone: Backbone,
    batch: EncodedBatch,
    *,
    shifts: Shifts | None = None,
    max_new_tokens: int = 32,
) -> list[Generation]:
    """Answers to prompts that are already encoded, padded on the left.

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
    return [
        _read(backbone, ids, count)
        for ids, count in zip(generated, batch.num_prompt_tokens, strict=True)
    ]
