"""What a decode step costs with a shift for each row, and with LoRA adapters in a mixed batch.

Both sit on the same bare loop over the text decoder, so that neither's server counts. The mixed
batch is PEFT's: `adapter_names=` with one adapter's name a row.
"""

import statistics
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from time import perf_counter
from typing import Any, Final, cast

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from app.method.backbone.loading import Backbone
from app.method.steering.injection import ShiftHooks
from benchmarks.figures.continuous import text_model
from benchmarks.harness import (
    bar,
    interleave,
    median_ratio,
    medians,
    paired_ratios,
    spread,
    without_collection,
)
from benchmarks.setting.requests import random_shifts

PROMPT_TOKENS: Final = 24
TARGETS: Final = {"attention": ["q_proj", "v_proj"], "all": "all-linear"}
_SEED: Final = 0


def adapter_figures(
    backbone: Backbone, *, num_rows: int, num_blocks: int, num_steps: int, rank: int
) -> dict[str, Any]:
    """The ratios to a plain step, with quartiles.

    Args:
        backbone: Whose text decoder is used.
        num_rows: Rows decoded together, and different adapters or shifts.
        num_blocks: Interleaved blocks.
        num_steps: Decode steps a block.
        rank: Of the adapters.
    """
    plain = text_model(backbone)
    generator = torch.Generator().manual_seed(_SEED)
    prompts = torch.randint(
        8, backbone.description.vocab_size, (num_rows, PROMPT_TOKENS), generator=generator
    ).to(backbone.device)
    shifts = torch.stack(random_shifts(backbone, num_rows))

    def steered() -> float:
        hooks = ShiftHooks(plain)
        try:
            with hooks.applied(shifts):
                return _median_step(plain, prompts, num_steps=num_steps)
        finally:
            hooks.remove()

    arms: dict[str, Callable[[], float]] = {
        "plain": partial(_median_step, plain, prompts, num_steps=num_steps),
        "a shift a row": steered,
    }
    for where in TARGETS:
        adapted = _with_adapters(plain, num_rows, rank=rank, where=where)
        for label, names in _mixes(num_rows).items():
            arms[f"LoRA on {where}, {label}"] = partial(
                _median_step, adapted, prompts, num_steps=num_steps, adapter_names=names
            )
    times = interleave(arms, rounds=bar(num_blocks, "LoRA"))
    plain_times = times["plain"]
    ratios = {name: values for name, values in times.items() if name != "plain"}
    return {
        "step_over_plain": {
            name: round(median_ratio(values, plain_times), 3) for name, values in ratios.items()
        },
        "step_over_plain_quartiles": {
            name: [round(edge, 3) for edge in spread(paired_ratios(values, plain_times))]
            for name, values in ratios.items()
        },
        "step_median_ms": medians(times),
    }


def _mixes(num_rows: int) -> dict[str, list[str]]:
    return {
        "one for all": ["row0"] * num_rows,
        "one a row": [f"row{row}" for row in range(num_rows)],
    }


def _with_adapters(plain: Any, num_adapters: int, *, rank: int, where: str) -> Any:  # noqa: ANN401
    """A copy of the model with random adapters called row0, row1 ..."""
    import peft

    configure: Any = peft.LoraConfig
    config = configure(
        r=rank,
        target_modules=TARGETS[where],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(_SEED)
        wrap: Any = peft.get_peft_model
        model = wrap(deepcopy(plain), config, adapter_name="row0")
        for index in range(1, num_adapters):
            model.add_adapter(f"row{index}", config)
    model.train(mode=False)
    return model


@torch.inference_mode()
def _median_step(
    model: Any,  # noqa: ANN401
    prompts: Int[Tensor, "rows tokens"],
    *,
    num_steps: int,
    **options: object,
) -> float:
    """Seconds of the median greedy decode step after the prompts."""
    cache = DynamicCache()
    run = cast("Callable[..., Any]", model)
    ids = prompts
    seconds = []
    with without_collection():
        for _ in range(num_steps + 1):
            began = perf_counter()
            output = run(input_ids=ids, past_key_values=cache, use_cache=True, **options)
            ids = output.logits[:, -1:].argmax(dim=-1)
            # Reading the ids is what waits for an accelerator.
            ids.tolist()
            seconds.append(perf_counter() - began)
    return statistics.median(seconds[1:])
