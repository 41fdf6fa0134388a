"""What benchmarks share: options, rounds that interleave, ratios, and what they print.

Knows no figure.
"""

import gc
import json
import math
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import torch
import transformers
import typer
from rich.console import Console
from rich.progress import track

from app.core.errors import InvalidInputError, VLibraryError
from app.core.telemetry.logs import configure_logs
from app.method.backbone.loading import Backbone

Result = TypeVar("Result")

POCKET: Final = "pocket"
RANDOM: Final = "random-30m"
LARGE: Final = "random-256m"

Backbones: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        help="pocket, random-30m, random-256m, a folder or a hub id; may be repeated. The ids of "
        "the first are at the top, those of the others in an object of their own.",
    ),
]
Draws: TypeAlias = Annotated[int, typer.Option(min=1, max=100, help="Draws of labelled items.")]
Questions: TypeAlias = Annotated[int, typer.Option(min=1, help="Test questions, the same for all.")]
OneBackbone: TypeAlias = Annotated[
    str, typer.Option("--backbone", help="pocket, pocket-2, a folder or a hub id.")
]
Rounds: TypeAlias = Annotated[int, typer.Option(min=1, help="Interleaved rounds.")]
Rows: TypeAlias = Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")]
Tokens: TypeAlias = Annotated[int, typer.Option(min=2, max=1024, help="New tokens an answer.")]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda ...")]
Dtype: TypeAlias = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def on_own_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns, computed on a thread that ends with it.

    A thread that computed keeps OpenMP's helpers, which slow down whoever computes after it
    (decision 0006).
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def run(command: Callable[..., Any]) -> None:
    """The benchmark as a command of its own; a library error becomes one line and exit status 1."""
    # What goes to stdout is the result.
    configure_logs("warning")
    try:
        typer.run(command)
    except VLibraryError as error:
        print(f"benchmark: {error.message}", file=sys.stderr)
        sys.exit(1)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed.

    Args:
        values: At least one.
        share: In (0, 1]; 0.99 for p99.

    Raises:
        InvalidInputError: There are no values, or the share is out of its range.
    """
    ordered = sorted(values)
    if not ordered or not 0 < share <= 1:
        raise InvalidInputError(
            f"Wanted values and a share in (0, 1], found {len(ordered)} values and {share}"
        )
    return ordered[math.ceil(share * len(ordered)) - 1]


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The ratio of each round.

    What slows a whole round down, such as a program beside us, slows both of its sides.

    Raises:
        InvalidInputError: There is no round, or the two have different numbers of them.
    """
    if not numerators or len(numerators) != len(denominators):
        raise InvalidInputError(
            f"Wanted equally many rounds of both, found {len(numerators)} and {len(denominators)}"
        )
    return [over / under for over, under in zip(numerators, denominators, strict=True)]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(paired_ratios(numerators, denominators))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile."""
    return percentile(values, 0.25), percentile(values, 0.75)


def medians(times: Mapping[str, Sequence[float]], *, digits: int = 3) -> dict[str, float]:
    """The median of each, in milliseconds when the times are seconds."""
    return {name: round(statistics.median(t) * 1000, digits) for name, t in times.items()}


def interleave(
    arms: Mapping[str, Callable[[], float]], *, rounds: Iterable[int]
) -> dict[str, list[float]]:
    """What each arm returned, round after round.

    Every round visits every arm, and every other round in the opposite order, so that neither
    drift nor what an arm leaves in the caches favours one of them.

    Args:
        arms: What to measure, by name; each is called once a round and once before, unmeasured.
        rounds: The rounds' numbers, from 0 on.
    """
    for measure in arms.values():
        measure()
    found: dict[str, list[float]] = {name: [] for name in arms}
    for index in rounds:
        for name in list(arms)[:: 1 if index % 2 == 0 else -1]:
            found[name].append(arms[name]())
    return found


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage is collected during the block, and little is left over from before."""
    was_enabled = gc.isenabled()
    # The oldest objects are torch's and transformers' own; walking them takes longer than we time.
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of the work in seconds."""
    with without_collection():
        began = perf_counter()
        work()
        return perf_counter() - began


def show(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the facts: as one JSON object, or a line each."""
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    console = Console()
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)


def bar(count: int, what: str) -> Iterable[int]:
    """The numbers from 0 to `count`, with a progress bar on stderr."""
    return track(range(count), description=what, console=Console(stderr=True), transient=True)


def report(
    script: str,
    measure: Callable[[str], dict[str, Any]],
    *,
    backbones: Sequence[str],
    as_json: bool,
    **conditions: object,
) -> None:
    """Measures and shows: the figures of the first backbone, the others' in objects of their own.

    Args:
        script: The module that is run.
        measure: The figures of one backbone.
        backbones: As given on the command line.
        as_json: Whether to print one JSON object.
        **conditions: What has to be known of the run besides.
    """
    first, *others = backbones
    figures = {**measure(first), **{key_of(name): measure(name) for name in others}}
    show({**figures, **machine_conditions(script, **conditions)}, as_json=as_json)


def key_of(name: str) -> str:
    """A backbone's name as a key of the printed object."""
    short = Path(name).name or name
    return "".join(letter if letter.isalnum() else "_" for letter in short)


def model_conditions(backbone: Backbone) -> dict[str, Any]:
    """What has to be known of the backbone to judge its figures."""
    model = backbone.model
    return {
        "model": backbone.name,
        "architecture": backbone.description.architecture,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(backbone.device),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attention": str(getattr(model.config, "_attn_implementation", "unknown")),
    }


def machine_conditions(script: str, **others: object) -> dict[str, Any]:
    """What has to be known of the run: the command, the machine, and what is told besides."""
    return {
        "script": f"python -m benchmarks.{script}",
        **others,
        "clock": "wall",
        "processor": processor_name(Path("/proc/cpuinfo")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def processor_name(cpuinfo: Path) -> str:
    """The processor's name where the system tells it, otherwise its kind."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
