"""How much fits into a backbone's context window; knows numbers of tokens only."""

from app.core.errors import ContextOverflowError
from app.method.backbone.loading import Backbone


def check_length(backbone: Backbone, num_tokens: int, *, num_new_tokens: int = 0) -> None:
    """Returns when a sequence fits the backbone's context window.

    Args:
        backbone: Whose window it is.
        num_tokens: Of the prompt, image tokens included.
        num_new_tokens: That are asked for behind it.

    Raises:
        ContextOverflowError: Together they are longer than the backbone was made for.
    """
    limit = backbone.description.max_position_embeddings
    if not limit or num_tokens + num_new_tokens <= limit:
        return
    asked = f" and {num_new_tokens} asked for" if num_new_tokens else ""
    raise ContextOverflowError(
        f"The prompt is too long: wanted at most {limit} tokens of context, found {num_tokens} "
        f"of the prompt{asked}; fewer shots or turns, or shorter texts, would fit",
        details={"context": limit, "prompt": num_tokens, "asked": num_new_tokens},
    )
