"""`python -m benchmarks.peers`: the engine and the steering beside what others offer for it."""

from importlib.util import find_spec
from typing import Annotated, Any, Final

import typer

from app.core.errors import ConfigurationError
from benchmarks.figures.adapters import adapter_figures
from benchmarks.figures.batching import batching_figures
from benchmarks.figures.continuous import continuous_figures
from benchmarks.harness import (
    POCKET,
    RANDOM,
    AsJson,
    Backbones,
    Device,
    Dtype,
    Rounds,
    Rows,
    Tokens,
    on_own_thread,
    report,
    run,
)
from benchmarks.setting.backbones import load

TIMED: Final = (
    "P3 as in `benchmarks.engine`; P4 from token ids to the tokens of all answers, both sides "
    "warm, each with the number of threads that suits it; adapters and shifts: one decode step of "
    "a bare loop on the text decoder"
)


def peers(
    *,
    rows: Rows = 16,
    tokens: Tokens = 32,
    rounds: Rounds = 5,
    blocks: Annotated[int, typer.Option(min=1, help="Interleaved blocks of decode steps.")] = 20,
    steps: Annotated[int, typer.Option(min=1, max=512, help="Decode steps a block.")] = 16,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of the adapters.")] = 8,
    backbone: Backbones = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """P3, P3_short, P4 and adapters: generate(), continuous batching and mixed-batch LoRA.

    P3 is the time of sequential `generate()` over the engine's, P4 the time of transformers' own
    continuous batching over the engine's for the same prompts without pictures, each with the
    number of threads that suits it; both with equal tokens. `step_over_plain` compares a decode
    step with a shift for each row, with one LoRA adapter for all rows and with one for each row
    (PEFT, `adapter_names=`) to a step of the bare decoder. Needs `pip install 'vlibrary[bench]'`.
    """
    _require_peft()

    def measure(name: str) -> dict[str, Any]:
        loaded = load(name, device=device, dtype=dtype)
        # Each on a thread of its own: one that computed slows those down which do so after it.
        lengths: Any = {"num_rows": rows, "num_tokens": tokens, "rounds": rounds}
        return {
            **on_own_thread(lambda: batching_figures(loaded, **lengths)),
            **on_own_thread(lambda: continuous_figures(loaded, **lengths)),
            **on_own_thread(
                lambda: adapter_figures(
                    loaded, num_rows=rows, num_blocks=blocks, num_steps=steps, rank=rank
                )
            ),
        }

    conditions = {"rows": rows, "tokens": tokens, "rounds": rounds, "blocks": blocks}
    report(
        "peers",
        measure,
        backbones=backbone or [POCKET, RANDOM],
        as_json=as_json,
        **conditions,
        steps=steps,
        rank=rank,
        timed=TIMED,
    )


def _require_peft() -> None:
    if find_spec("peft") is None:
        raise ConfigurationError(
            "This benchmark compares with PEFT, which is not installed: "
            "pip install 'vlibrary[bench]' (from a checkout: "
            "pip install --constraint requirements/constraints.txt --editable '.[bench]')"
        )


if __name__ == "__main__":
    run(peers)
