"""The first pass of prompts, through the stock forward: exact for every family."""

import inspect
from collections import abc
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL

from app.method.backbone.loading import Backbone
from app.method.steering.injection import ShiftHooks, Shifts
from app.worker.engine.collate import stack_inputs, stack_shifts
from app.worker.engine.sequence import Sequence

# Read by the first pass only; holding on to pixels would cost more than the cache does.
_IMAGE_KEYS: Final = frozenset(
    {
        *MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL,
        "image_grid_thw",
        "aspect_ratio_ids",
        "aspect_ratio_mask",
    }
)


ForwardOutput: TypeAlias = tuple[Float[Tensor, "rows vocab"], int]
"""The logits of each row's next token, float32, and how many sites were shifted of steered rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefilled:
    """Rows after their first pass.

    Attributes:
        sources: Where in it each row's are: the row of the batch and the positions in that.
        next_positions: Of each row's first token, in every component that positions have.
    """

    cache: Cache
    sources: abc.Sequence[tuple[int, slice]]
    output: ForwardOutput
    next_positions: Int[Tensor, "*components rows"]


@dataclass(kw_only=True, eq=False)
class PaddedBatch:
    """Rows with what the stock loop needs to carry on with them.

    Attributes:
        state: What the stock loop carries from one pass to the next, the cache included.
    """

    rows: list[Sequence]
    tokens: Int[Tensor, "rows tokens"]
    state: dict[str, Any]
    shifts: Shifts | None


@cache
def accepted_inputs(forward: abc.Callable[..., Any]) -> frozenset[str]:
    """The names that the forward function of a class of models takes."""
    return frozenset(inspect.signature(forward).parameters)


def padded_prefill(
    backbone: Backbone, rows: abc.Sequence[Sequence], *, hooks: ShiftHooks, keeps_windows: bool
) -> tuple[PaddedBatch, Prefilled]:
    """The prompts read, each under its own shift.

    The sequences are of one layout. Where it `keeps_windows`, the cache may drop what sliding
    attention no longer sees.

    Raises:
        SteeringError: A shift could not be applied in full.
    """
    # Its methods for generation come from a mixin that type checkers do not see.
    model: Any = backbone.model
    accepted = accepted_inputs(type(backbone.model).forward)
    pad_token_id = int(backbone.tokenizer.pad_token_id)
    state = stack_inputs([row.inputs for row in rows], pad_token_id=pad_token_id)
    tokens = state.pop("input_ids")
    state["past_key_values"] = (
        DynamicCache(config=model.config.get_text_config()) if keeps_windows else DynamicCache()
    )
    state["use_cache"] = True
    if "logits_to_keep" in accepted:
        state["logits_to_keep"] = 1
    if "position_ids" in accepted:
        state["position_ids"] = model._prepare_position_ids_for_generation(  # noqa: SLF001 - each family's own rule
            tokens, state
        )
        last = state["position_ids"][..., -1]
    else:
        # The backbone counts by itself.
        last = state["attention_mask"].sum(1) - 1
    shifts = stack_shifts([row.shift for row in rows])
    output, state = stock_forward(model, tokens, state, hooks=hooks, shifts=shifts, is_first=True)
    state = {key: value for key, value in state.items() if key not in _IMAGE_KEYS}
    longest = tokens.shape[1]
    batch = PaddedBatch(rows=list(rows), tokens=tokens, state=state, shifts=shifts)
    return batch, Prefilled(
        cache=state["past_key_values"],
        sources=[
            (place, slice(longest - row.num_prompt_tokens, longest))
            for place, row in enumerate(rows)
        ],
        output=output,
        next_positions=last + 1,
    )


def stock_forward(
    model: Any,  # noqa: ANN401 - its methods for generation come from an untyped mixin
    tokens: Int[Tensor, "rows tokens"],
    state: dict[str, Any],
    *,
    hooks: ShiftHooks,
    shifts: Shifts | None,
    is_first: bool,
) -> tuple[ForwardOutput, dict[str, Any]]:
    """One pass as the stock `generate` loop makes it, and the state to go on with.

    Raises:
        SteeringError: A shift could not be applied in full.
    """
    inputs = model.prepare_inputs_for_generation(
        tokens,
        next_sequence_length=None if is_first else 1,
        is_first_iteration=is_first,
        **state,
    )
    with hooks.applied(shifts) as receipt:
        outputs = model(**inputs, return_dict=True)
    state = model._update_model_kwargs_for_generation(  # noqa: SLF001 - the stock loop's own bookkeeping
        outputs, state, is_encoder_decoder=False
    )
    return (outputs.logits[:, -1].float(), receipt.sites_hit), state
