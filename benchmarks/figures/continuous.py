"""P4: the engine beside transformers' own continuous batching, on prompts without pictures.

Theirs takes token ids and a text model only, so it gets the text decoder of the same backbone as a
causal language model of its own, with the same weights.
"""

import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import torch
import transformers as hf

from app.core.errors import VLibraryError
from app.method.backbone.loading import Backbone
from benchmarks.harness import bar, interleave, median_ratio, medians, on_own_thread, seconds_of
from benchmarks.setting.backbones import without_end
from benchmarks.setting.requests import (
    Answers,
    Asked,
    from_pixels,
    require_equal,
    running_engine,
    text_prompts,
    through_engine,
)

ENGINE: Final = "engine"
CONTINUOUS: Final = "continuous batching"
PAGE_TOKENS: Final = 256
SPARE_PAGES: Final = 8
PATIENCE_SECONDS: Final = 120.0
NO_END: Final = -1


def continuous_figures(
    backbone: Backbone, *, num_rows: int, num_tokens: int, rounds: int
) -> dict[str, Any]:
    """P4 with its conditions, each side with the number of threads that suits it best.

    Args:
        backbone: Who answers.
        num_rows: Requests that arrive together.
        num_tokens: Length of the answers.
        rounds: Interleaved rounds.

    Raises:
        VLibraryError: The two sides wrote different tokens.
    """
    endless = without_end(backbone)
    asked = from_pixels(endless, text_prompts(endless, num_rows), [None] * num_rows)
    alone = on_own_thread(lambda: text_model(backbone))
    answered: list[Answers] = []

    def checked(answer: Callable[[], Answers]) -> float:
        seconds = seconds_of(lambda: answered.append(answer()))
        require_equal(answered[0], answered[-1], what="P4")
        return seconds

    def ours() -> float:
        with running_engine(endless, max_rows=num_rows) as engine:
            through_engine(engine, asked, num_tokens=num_tokens)
            return checked(lambda: through_engine(engine, asked, num_tokens=num_tokens))

    def theirs() -> float:
        with _manager(alone, endless, asked, num_tokens=num_tokens) as manager:
            _through_manager(manager, asked, num_tokens=num_tokens)
            return checked(lambda: _through_manager(manager, asked, num_tokens=num_tokens))

    counts = sorted({1, torch.get_num_threads()})
    times = interleave(
        {
            f"{side}, threads: {count}": partial(_with_threads, measure, count=count)
            for side, measure in ((ENGINE, ours), (CONTINUOUS, theirs))
            for count in counts
        },
        rounds=bar(rounds, "P4"),
    )
    best_of_ours, best_of_theirs = (_quickest(times, side) for side in (ENGINE, CONTINUOUS))
    return {
        "P4": round(median_ratio(times[best_of_theirs], times[best_of_ours]), 3),
        "P4_sides": [best_of_theirs, best_of_ours],
        "P4_identical": True,
        "P4_median_ms": medians(times),
    }


def _with_threads(measure: Callable[[], float], *, count: int) -> float:
    """A figure measured with so many threads, on a thread that leaves none of them behind."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return on_own_thread(measure)
    finally:
        torch.set_num_threads(before)


def _quickest(times: Mapping[str, Sequence[float]], side: str) -> str:
    return min(
        (name for name in times if name.startswith(side)),
        key=lambda name: statistics.median(times[name]),
    )


def text_model(backbone: Backbone) -> Any:  # noqa: ANN401 - each family has its own class
    """The backbone's text decoder with its head, as a causal language model of its own memory."""
    model: Any = backbone.model
    make: Any = hf.AutoModelForCausalLM.from_config
    alone = make(model.config.get_text_config(), attn_implementation="sdpa")
    alone.get_decoder().load_state_dict(model.get_decoder().state_dict())
    alone.get_output_embeddings().load_state_dict(model.get_output_embeddings().state_dict())
    alone.train(mode=False)
    alone.requires_grad_(requires_grad=False)
    return alone.to(device=backbone.device, dtype=backbone.dtype)


@contextmanager
def _manager(
    alone: Any,  # noqa: ANN401 - each family has its own class
    backbone: Backbone,
    asked: Sequence[Asked],
    *,
    num_tokens: int,
) -> Iterator[Any]:
    """Their manager, running, with room for all requests at once and no end token."""
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    longest = max(int(one.inputs["input_ids"].shape[1]) for one in asked) + num_tokens
    pages = len(asked) * -(-longest // PAGE_TOKENS) + SPARE_PAGES
    configure: Any = hf.GenerationConfig
    with alone.continuous_batching_context_manager(
        generation_config=configure(
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=NO_END,
            pad_token_id=backbone.tokenizer.pad_token_id,
        ),
        continuous_batching_config=hf.ContinuousBatchingConfig(
            page_size=PAGE_TOKENS, num_blocks=pages
        ),
    ) as manager:
        yield manager


def _through_manager(manager: Any, asked: Sequence[Asked], *, num_tokens: int) -> Answers:  # noqa: ANN401
    prompts = [one.inputs["input_ids"][0].tolist() for one in asked]
    ids = manager.add_requests(inputs=prompts, max_new_tokens=num_tokens)
    found: dict[str, tuple[int, ...]] = {}
    while len(found) < len(ids):
        result = manager.get_result(timeout=PATIENCE_SECONDS)
        if result is None or result.error is not None:
            raise VLibraryError("P4: continuous batching did not answer")
        if result.is_finished():
            found[result.request_id] = tuple(result.generated_tokens)
    return [found[request_id] for request_id in ids]
