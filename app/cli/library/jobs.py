"""`vlibrary jobs`: trainings, combinations and measurements on a server."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import print_result
from app.cli.library.server import Key, Limit, Refs, Tags, Url, connected, print_listed
from app.cli.options import AsJson
from app.core.jobs import MAX_ITEMS, JobState, Rule

if TYPE_CHECKING:
    from vlibrary_client import Job

jobs = typer.Typer(
    name="jobs", help="Train, combine and measure on a server.", no_args_is_help=True
)

Dataset = Annotated[str, typer.Argument(help="A data set of the server: a name or an id.")]
Split = Annotated[str | None, typer.Option(help="Which part of the data set.")]
Description = Annotated[str, typer.Option(help="What it is for.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every draw.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return at once.")]
ReportTo = Annotated[
    list[str] | None,
    typer.Option(help="Also write it to trackio, mlflow, wandb or tensorboard; may be repeated."),
]


@jobs.command()
def train(
    name: Annotated[str, typer.Argument(help="What the vector is called.")],
    dataset: Dataset,
    *,
    shots: Annotated[
        int, typer.Option(min=1, max=64, help="Demonstrations it shall stand for.")
    ] = 16,
    split: Split = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Name or fingerprint; needed where workers train several backbones."),
    ] = None,
    description: Description = "",
    tag: Tags = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Such as epochs=3, of those that `vlibrary train --help` lists; may be repeated.",
        ),
    ] = None,
    detach: Detach = False,
    report_to: ReportTo = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Train the next version of a name, with a progress bar and the report at the end."""
    from app.cli.local.train import read_changes

    config = read_changes(setting, {"shots": shots})
    _check_trackers(report_to, detach=detach)
    with connected(url, key) as client:
        job = client.train(
            name,
            dataset,
            split=split,
            shots=shots,
            backbone=backbone,
            description=description,
            tags=tag or (),
            **config,
        )
        _watch(job, report_to, detach=detach, as_json=as_json)


@jobs.command()
def combine(
    name: Annotated[str, typer.Argument(help="What the result is called.")],
    refs: Refs,
    *,
    dataset: Annotated[str, typer.Option(help="Items that choose and measure: a name or an id.")],
    rule: Annotated[Rule, typer.Option(help="See docs/library.md.")] = "learned",
    split: Split = None,
    seed: Seed = 0,
    description: Description = "",
    tag: Tags = None,
    detach: Detach = False,
    report_to: ReportTo = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Combine vectors by labelled items that none was trained on, and measure the result."""
    _check_trackers(report_to, detach=detach)
    with connected(url, key) as client:
        job = client.combine(
            name,
            refs,
            dataset,
            rule=rule,
            split=split,
            seed=seed,
            description=description,
            tags=tag or (),
        )
        _watch(job, report_to, detach=detach, as_json=as_json)


@jobs.command()
def evaluate(
    ref: Annotated[str, typer.Argument(help="A name, name@version, name@alias or id.")],
    dataset: Dataset,
    *,
    split: Annotated[
        str | None, typer.Option(help="Which part is asked; test, if not told.")
    ] = None,
    support_split: Annotated[
        str | None, typer.Option(help="Which part demonstrates; train, if not told.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="icl, icl_balanced, knn_icl or nearest_copy; may be repeated. The vector, "
            "zero-shot and the most usual answer are always measured."
        ),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, max=64, help="Demonstrations.")] = 16,
    items: Annotated[int, typer.Option(min=1, max=MAX_ITEMS, help="Most items asked.")] = 200,
    seed: Seed = 0,
    detach: Detach = False,
    report_to: ReportTo = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Measure a stored vector on a stored data set, beside demonstrations and copying."""
    chosen: Any = method
    _check_trackers(report_to, detach=detach)
    with connected(url, key) as client:
        job = client.evaluate(
            ref,
            dataset,
            split=split,
            support_split=support_split,
            methods=chosen,
            shots=shots,
            items=items,
            seed=seed,
        )
        _watch(job, report_to, detach=detach, as_json=as_json)


@jobs.command()
def watch(
    job_id: JobId,
    *,
    report_to: ReportTo = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Follow a job to its end; lost connections are resumed."""
    _check_trackers(report_to)
    with connected(url, key) as client:
        _watch(client.job(job_id), report_to, as_json=as_json)


def _check_trackers(report_to: list[str] | None, *, detach: bool = False) -> None:
    """Returns when what shall be written to can be, before there is a job to tell of."""
    from vlibrary_client import ConfigurationError
    from vlibrary_client.trackers import require_trackers

    if report_to and detach:
        raise typer.BadParameter(
            "trackers are written to while a job is watched: not with --detach"
        )
    trackers: Any = report_to
    try:
        require_trackers(trackers)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


def _watch(job: "Job", report_to: list[str] | None, *, as_json: bool, detach: bool = False) -> None:
    trackers: Any = report_to
    try:
        if not detach:
            job = job.wait(progress=not as_json, report_to=trackers)
    except BaseException as error:
        # What ended the job itself tells its state.
        if "state" not in getattr(error, "details", ()):
            told = f"The job goes on: `vlibrary jobs watch {job.id}`, or end it with `cancel`"
            print(told, file=sys.stderr)
        raise
    _print_job(job, as_json=as_json)


def _print_job(job: "Job", *, as_json: bool) -> None:
    vector = "" if job.vector is None else f": {job.vector.ref} ({job.vector.status})"
    waiting = "" if job.waits_for is None else f": waits for {job.waits_for}"
    print_result(job, f"{job.id} {job.state}{vector}{waiting}", as_json=as_json)


@jobs.command(name="list")
def list_jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Limit = 50,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with connected(url, key) as client:
        print_listed(
            client.jobs,
            titles=("id", "kind", "vector", "created (UTC)", "state", "step", "note"),
            line=_line,
            limit=limit,
            as_json=as_json,
            state=state,
        )


def _line(job: "Job") -> tuple[object, ...]:
    return (
        job.id,
        job.kind,
        job.vector.ref if job.vector else job.name,
        f"{job.created:%Y-%m-%d %H:%M}",
        job.state,
        job.progress and f"{job.progress.step}/{job.progress.num_steps}",
        job.error.message if job.error else job.waits_for and f"waits for {job.waits_for}",
    )


@jobs.command()
def cancel(job_id: JobId, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Ask a job to stop; it does so at its next step."""
    with connected(url, key) as client:
        job = client.job(job_id).cancel()
    _print_job(job, as_json=as_json)
    if not job.is_final:
        print("It stops at its next step", file=sys.stderr)
