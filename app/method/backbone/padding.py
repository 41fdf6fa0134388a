"""Prompts padded on the right, with answers put right after them."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

# What a processor may return with one entry a token; everything else describes images.
TOKEN_KEYS: Final = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "cross_attention_mask",
    "image_attention_mask",
)


def _extended(
    value: Shaped[Tensor, "rows ..."],
    *,
    source: Int[Tensor, "rows tokens"],
    kept: Bool[Tensor, "rows tokens"],
) -> Shaped[Tensor, "rows tokens ..."]:
    rows = torch.arange(len(value), device=value.device)[:, None]
    mask = kept.view(*kept.shape, *([1] * (value.ndim - kept.ndim)))
    return value[rows, source] * mask.to(value.dtype)


def append_answers(
    inputs: dict[str, Any],
    answers: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    answer_type: int = 0,
) -> tuple[dict[str, Any], Bool[Tensor, "rows tokens"]]:
    """Right-padded inputs with each row's answer put right after its prompt.

    No answer is empty. What is left of `input_ids` is filled with `pad_token_id`, and
    `token_type_ids` call an answer `answer_type`.

    Returns:
        New inputs, and the positions whose logits predict the answers.
    """
    mask: Int[Tensor, "rows tokens"] = inputs["attention_mask"]
    device = mask.device
    lengths = mask.sum(1)
    added = torch.tensor([len(ids) for ids in answers], device=device)
    positions = torch.arange(int((lengths + added).max()), device=device)[None, :]
    in_prompt = positions < lengths[:, None]
    in_answer = ~in_prompt & (positions < (lengths + added)[:, None])
    source = torch.minimum(positions, lengths[:, None] - 1)

    result = dict(inputs)
    for key in inputs.keys() & set(TOKEN_KEYS):
        # An answer is text; of masks over images it gets what the last token saw.
        kept = in_prompt if inputs[key].ndim == source.ndim else in_prompt | in_answer
        result[key] = _extended(inputs[key], source=source, kept=kept)
    if answer_type and "token_type_ids" in result:
        result["token_type_ids"] = result["token_type_ids"].masked_fill(in_answer, answer_type)
    flat = [token_id for ids in answers for token_id in ids]
    ids = torch.where(in_prompt, result["input_ids"], pad_token_id)
    ids[in_answer] = torch.tensor(flat, dtype=ids.dtype, device=device)
    result["input_ids"] = ids
    result["attention_mask"] = (in_prompt | in_answer).to(mask.dtype)
    last = (lengths + added)[:, None] - 1
    return result, (positions >= lengths[:, None] - 1) & (positions < last)
