"""Answers to prompts that nobody has encoded yet."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, encode_prompts
from app.method.steering.greedy import answer_text, generate_encoded
from app.method.steering.injection import Shifts


@dataclass(frozen=True, kw_only=True)
class Generation:
    text: str
    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    finish_reason: str


def generate(
    backbone: Backbone,
    prompts: Sequence[PromptText],
    *,
    shifts: Shifts | None = None,
    max_new_tokens: int = 32,
) -> list[Generation]:
    """Answers to prompts, as one batch, read from pixels."""
    batch = encode_prompts(backbone, prompts)
    answers = generate_encoded(backbone, batch, shifts=shifts, max_new_tokens=max_new_tokens)
    return [
        Generation(
            text=answer_text(backbone, ids),
            token_ids=ids,
            num_prompt_tokens=count,
            finish_reason="length" if len(ids) == max_new_tokens else "stop",
        )
        for ids, count in zip(answers, batch.num_prompt_tokens, strict=True)
    ]
