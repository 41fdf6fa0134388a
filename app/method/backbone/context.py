"""Whether a prompt and its answer fit the backbone's context, told before any picture is seen.

Runs on the device thread, which owns the tokenizer; knows no request.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Literal

from app.core.errors import ContextOverflowError, InvalidInputError
from app.method.backbone.features import FeatureCache
from app.method.backbone.prompts import PromptText


def require_context(
    features: FeatureCache,
    prompt: PromptText,
    *,
    build: Callable[[int], PromptText],
    most: int,
    unit: Literal["shots", "turns"],
    num_new_tokens: int,
) -> None:
    """Returns when the prompt fits; `build` makes it with fewer than its `most` shots or turns.

    Raises:
        ContextOverflowError: It does not; the error tells how many shots or turns would.
    """
    backbone = features.backbone
    limit = backbone.description.max_position_embeddings
    if not limit:
        return
    (length,) = features.count_tokens([prompt])
    if backbone.fits_context(length + num_new_tokens):
        return

    def total(count: int) -> int:
        for more in range(count, most):
            try:
                shorter = build(more)
            except InvalidInputError:
                # Templates may want a turn of the model behind each of the user.
                continue
            (found,) = features.count_tokens([shorter])
            return found + num_new_tokens
        return limit + 1

    fitting = bisect_right(range(1, most), limit, key=total)
    pictures = features.count_picture_tokens(prompt)
    facts = {"context": limit, "prompt": length, "asked": num_new_tokens, "pictures": pictures}
    shown = f" ({pictures} of them for its pictures)" if prompt.images else ""
    found = (
        f"wanted at most {limit} tokens of context, found {length} of the prompt{shown} and "
        f"{num_new_tokens} asked for"
    )
    if most <= 1 and unit == "turns":
        raise ContextOverflowError(f"The prompt is too long: {found}", details=facts)
    raise ContextOverflowError(
        f"The prompt is too long: {found}; {fitting} of {most} {unit} would fit",
        details={**facts, f"{unit}_that_fit": fitting},
    )
