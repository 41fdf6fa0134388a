"""`vlibrary train`: train an M2IV on a local data set, without a server."""

import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.console import plain_console, print_json
from app.cli.local.datasets import (
    ColumnMap,
    Question,
    SkipBad,
    TextOnly,
    load_local,
    read_map,
    refuse_unread,
)
from app.cli.options import AsJson, Device, LocalBackbone, Revision, Seed, require_writable
from app.core.errors import ConfigurationError, InvalidInputError
from app.core.telemetry.logs import get_logger
from app.method.training.configuration import TrainingConfig, TrainingSettings, read_settings

log = get_logger(__name__)


def settings_help() -> str:
    """A paragraph for each setting of a training: what it may be, its default, what it means."""
    described = TrainingSettings.model_json_schema()["properties"]
    lines = [
        f"{name} ({_bounds(field)}; {json.dumps(field['default'])}): "
        + " ".join(field["description"].split())
        for name, field in described.items()
        if name != "seed"
    ]
    return "\n\n".join(["Settings, with what they may be and their defaults:", *lines])


def _bounds(field: Mapping[str, Any]) -> str:
    kind: Mapping[str, Any] = field.get("anyOf", [field])[0]
    if "enum" in kind:
        return " or ".join(kind["enum"])
    if "maximum" in kind:
        return f"{kind['minimum']:,} to {kind['maximum']:,}"
    return "text" if "maxLength" in kind else "true or false"


def read_changes(setting: list[str] | None, own: dict[str, Any]) -> dict[str, Any]:
    """The settings that are given beside a command's own options.

    Raises:
        BadParameter: One is such an option, unknown, out of its range or not NAME=VALUE.
    """
    try:
        changes = read_settings(setting or ())
        for name in own.keys() & changes.keys():
            raise typer.BadParameter(f"wanted --{name}, found {name} among the settings")
        TrainingConfig.from_dict(own | changes)
    except InvalidInputError as error:
        raise typer.BadParameter(error.message) from error
    return changes


def train(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Argument(help="easy-vqa, or a folder or file of any known layout.")
    ],
    *,
    output: Annotated[Path, typer.Option(dir_okay=False, help="Where the vector's file goes.")],
    backbone: LocalBackbone = "pocket",
    revision: Revision = None,
    split: Annotated[
        str | None, typer.Option(help="Part to train on; train, or the only one, if not told.")
    ] = None,
    column_map: ColumnMap = None,
    question: Question = None,
    skip_bad: SkipBad = False,
    text_only: TextOnly = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Most items taken.")] = None,
    shots: Annotated[int, typer.Option(min=1, max=64, help="The teacher's demonstrations.")] = 16,
    seed: Seed = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting below as name=value; may be repeated."),
    ] = None,
    device: Device = "auto",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep the state here and go on from it when it exists.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a vector file from examples, with a progress bar.

    What Ctrl-C ends goes on from its newest --checkpoint, where one is named.
    """
    from app.method.backbone.loading import load_backbone
    from app.method.training.distillation import train as run
    from app.worker.training.results import card_of, encode_result, report_of
    from vlibrary_client.terminals import progress_reporter

    require_writable(output.parent)
    if checkpoint is not None:
        require_writable(checkpoint.parent, option="--checkpoint")
    own = {"shots": shots, "seed": seed}
    config = TrainingConfig.from_dict(own | read_changes(setting, own))
    refuse_unread(context, dataset)
    examples = load_local(
        dataset,
        split=split,
        limit=limit,
        seed=seed,
        columns=read_map(column_map, question),
        skip_bad=skip_bad,
        text_only=text_only,
    )
    loaded = load_backbone(backbone, revision=revision, device=device)
    with progress_reporter(progress=True, title=output.stem) as report:
        result = run(
            loaded,
            examples,
            config,
            on_step=report,  # type: ignore[arg-type]  # the SDK's Progress has the same fields
            checkpoint=checkpoint.read_bytes() if checkpoint and checkpoint.exists() else None,
            on_checkpoint=None if checkpoint is None else partial(_keep, checkpoint),
        )
    card = card_of(loaded, result, config=config, dataset=dataset)
    _write(output, encode_result(loaded, result, card=card))
    _show(report_of(result, config), output, as_json=as_json)


def _keep(checkpoint: Path, content: bytes) -> None:
    """Replaces the checkpoint; one that finds no room is left out, as a worker does."""
    from vlibrary_client.calls.requests import replace_file

    try:
        replace_file(checkpoint, content)
    except OSError as error:
        log.warning("checkpoint left out", action="train.checkpoint", reason=str(error))


def _write(output: Path, content: bytes) -> None:
    """Writes the vector, or else keeps it among temporary files rather than lose a training.

    Raises:
        ConfigurationError: It had to; the message tells where.
    """
    from vlibrary_client.calls.requests import replace_file

    try:
        replace_file(output, content)
    except OSError as error:
        kept = Path(tempfile.mkdtemp(prefix="vlibrary-")) / output.name
        kept.write_bytes(content)
        raise ConfigurationError(
            f"cannot write {output}: {error.strerror or error}; the vector is kept in {kept}"
        ) from error


def _show(report: dict[str, Any], output: Path, *, as_json: bool) -> None:
    from vlibrary_client.terminals import print_report

    if as_json:
        print_json({"output": output, **report})
        return
    print_report(report, console=plain_console())
    print(f"Wrote {output}")
