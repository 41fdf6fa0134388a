"""The options that benchmarks share."""

from typing import Annotated, Final, TypeAlias

import typer

POCKET: Final = "pocket"
RANDOM: Final = "random-30m"

Backbones: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        help="pocket, random-30m, a folder or a hub id; may be repeated. The ids of the first are "
        "at the top, those of the others in an object of their own.",
    ),
]
Rounds: TypeAlias = Annotated[int, typer.Option(min=1, help="Interleaved rounds.")]
Rows: TypeAlias = Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")]
Tokens: TypeAlias = Annotated[int, typer.Option(min=2, max=1024, help="New tokens an answer.")]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda ...")]
Dtype: TypeAlias = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
