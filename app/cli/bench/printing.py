"""What benchmarks print: the figures with their conditions, and bars on stderr meanwhile."""

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

if TYPE_CHECKING:
    from app.method.backbone import Backbone


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


def for_backbones(names: Sequence[str], measure: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """The figures of the first backbone, and those of each other in an object of its own.

    Args:
        names: As given on the command line.
        measure: The figures of one of them.
    """
    first, *others = names
    return {**measure(first), **{key_of(name): measure(name) for name in others}}


def key_of(name: str) -> str:
    """A backbone's name as a key of the printed object."""
    short = Path(name).name or name
    return "".join(letter if letter.isalnum() else "_" for letter in short)


def model_conditions(backbone: "Backbone") -> dict[str, Any]:
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
    import torch
    import transformers

    return {
        "script": f"vlibrary bench {script}",
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
