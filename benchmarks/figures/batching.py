"""P3 and P3_short: concurrent image requests through the engine and one by one.

Both sides get the same inputs under the same shifts and have to write the same tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from app.method.backbone.loading import Backbone
from benchmarks.harness import bar, interleave, median_ratio, medians, model_conditions, seconds_of
from benchmarks.setting.backbones import without_end
from benchmarks.setting.requests import (
    Answers,
    Asked,
    from_features,
    from_pixels,
    image_prompts,
    one_by_one,
    random_shifts,
    require_equal,
    running_engine,
    through_engine,
)

SHORT_TOKENS: Final = 2
WARM_TOKENS: Final = 2


def batching_figures(
    backbone: Backbone, *, num_rows: int, num_tokens: int, rounds: int
) -> dict[str, Any]:
    """P3 and P3_short with their conditions.

    Args:
        backbone: Who answers.
        num_rows: Requests that arrive together.
        num_tokens: Length of the long answers.
        rounds: Interleaved rounds of each length.

    Raises:
        VLibraryError: The two sides wrote different tokens.
    """
    endless = without_end(backbone)
    prompts = image_prompts(endless, num_rows)
    shifts = random_shifts(endless, num_rows)
    sources = {
        "pixels": from_pixels(endless, prompts, shifts),
        "features": from_features(endless, prompts, shifts),
    }
    long = _times(endless, sources, num_tokens=num_tokens, rounds=bar(rounds, "P3"))
    short = _times(endless, sources, num_tokens=SHORT_TOKENS, rounds=bar(rounds, "P3_short"))
    return {
        "P3": _ratio(long, "pixels"),
        "P3_short": _ratio(short, "pixels"),
        "P3_features": _ratio(long, "features"),
        "P3_short_features": _ratio(short, "features"),
        # Otherwise there would have been an error.
        "identical": True,
        "median_ms": {"P3": medians(long), "P3_short": medians(short)},
        **model_conditions(backbone),
    }


def _ratio(times: Mapping[str, Sequence[float]], source: str) -> float:
    return round(median_ratio(times[f"sequential {source}"], times[f"engine {source}"]), 3)


def _times(
    backbone: Backbone,
    sources: Mapping[str, Sequence[Asked]],
    *,
    num_tokens: int,
    rounds: Iterable[int],
) -> dict[str, list[float]]:
    """Seconds of each side for each kind of inputs, checked in every round."""
    wanted: dict[str, Answers] = {}

    def checked(source: str, answer: Callable[[], Answers]) -> float:
        found: list[Answers] = []
        seconds = seconds_of(lambda: found.append(answer()))
        require_equal(wanted.setdefault(source, found[0]), found[0], what=f"P3 from {source}")
        return seconds

    def sequential(source: str) -> float:
        with one_by_one(backbone) as answer:
            return checked(source, lambda: answer(sources[source], num_tokens))

    def batched(source: str) -> float:
        asked = sources[source]
        with running_engine(backbone, max_rows=len(asked)) as engine:
            # A service's engine has answered before; ours is new in every round, so that the other
            # side does not carry its hooks.
            through_engine(engine, asked, num_tokens=WARM_TOKENS)
            return checked(source, lambda: through_engine(engine, asked, num_tokens=num_tokens))

    sides = {"sequential": sequential, "engine": batched}
    arms = {
        f"{side} {source}": partial(measure, source)
        for source in sources
        for side, measure in sides.items()
    }
    return interleave(arms, rounds=rounds)
