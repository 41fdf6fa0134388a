"""Answers to prompts that nobody has encoded yet."""

from collections.abc import Sequence

from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, encode_prompts
from app.method.steering.greedy import Generation, generate_encoded
from app.method.steering.injection import Shifts


def generate(
    backbone: Backbone,
    prompts: Sequence[PromptText],
    *,
    shifts: Shifts | None = None,
    max_new_tokens: int = 32,
) -> list[Generation]:
    """Answers to prompts, as one batch, read from pixels."""
    batch = encode_prompts(backbone, prompts)
    return generate_encoded(backbone, batch, shifts=shifts, max_new_tokens=max_new_tokens)
