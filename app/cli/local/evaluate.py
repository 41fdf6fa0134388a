"""`vlibrary evaluate`: measure conditions on a local data set, without a server."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from app.cli.console import harmless, plain_console, print_json, show_table
from app.cli.local.conditions import (
    CONDITIONS,
    EPISODIC,
    read_conditions,
    read_shots,
    spelled,
    steered_by,
    unsteered,
)
from app.cli.local.datasets import (
    ColumnMap,
    Question,
    SkipBad,
    TextOnly,
    load_local,
    named_alike,
    read_map,
    refuse_unread,
)
from app.cli.local.suite import run as run_suite
from app.cli.options import AsJson, Device, LocalBackbone, Revision, Seed, refuse_given
from app.core.errors import VLibraryError
from app.core.jobs import Method

# Options that mean nothing without a suite, and with one.
_OF_SUITE: Final = {"methods", "items", "seeds", "questions", "task", "kept_only", "output"}
_OF_SUPPORT: Final = {"support", "support_split"}
_OF_ITEMS: Final = _OF_SUPPORT | {"split", "column_map", "question", "skip_bad", "text_only"}
_OF_DATA: Final = _OF_ITEMS | {"vector", "condition", "limit", "strength", "scorer", "seed"}


def evaluate(
    context: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="easy-vqa, a folder or file of any known layout, or a benchmark in its official "
            "files: gqa:FOLDER, vqav2, okvqa, vizwiz, aokvqa-mc, aokvqa-da, cvqa, "
            "vl-icl-TASK."
        ),
    ] = None,
    *,
    suite: Annotated[
        str | None,
        typer.Option(help="Measure every task of a suite instead: its name or folder."),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(help="Of a suite: all, ablations, many_shot or names, commas between."),
    ] = "all",
    items: Annotated[
        str, typer.Option(help="Of a suite: labelled items to learn from, with commas between.")
    ] = "100",
    seeds: Annotated[int, typer.Option(min=1, help="Of a suite: draws of the items.")] = 3,
    questions: Annotated[int, typer.Option(min=1, help="Of a suite: test items a task.")] = 200,
    task: Annotated[
        list[str] | None, typer.Option(help="Of a suite: a task of it; may be repeated.")
    ] = None,
    kept_only: Annotated[
        bool, typer.Option("--kept-only", help="Of a suite: report what is kept, measure nothing.")
    ] = False,
    output: Annotated[
        Path, typer.Option(help="Of a suite: folder of the file of cells; a run goes on from them.")
    ] = Path("evaluations"),
    vector: Annotated[
        Path | None,
        typer.Option(exists=True, help="File of an M2IV to measure, or the folder of an export."),
    ] = None,
    support: Annotated[
        str | None, typer.Option(help="Where demonstrations come from: a data set as above.")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {spelled(CONDITIONS)}; may be repeated."),
    ] = None,
    backbone: LocalBackbone = "pocket",
    revision: Revision = None,
    split: Annotated[
        str | None,
        typer.Option(help="Part that is asked: test; of a benchmark one with public answers."),
    ] = None,
    column_map: ColumnMap = None,
    question: Question = None,
    skip_bad: SkipBad = False,
    text_only: TextOnly = False,
    support_split: Annotated[
        str | None,
        typer.Option(help="Part that demonstrates: train; of a benchmark the one to learn from."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most items asked.")] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Demonstrations [16; of VL-ICL 1]; of a suite, those to choose from, with "
            "commas between [1,2,4,8,16,32]."
        ),
    ] = None,
    strength: Annotated[float, typer.Option(min=-10.0, max=10.0)] = 1.0,
    scorer: Annotated[
        str | None,
        typer.Option(help="How answers are scored: as the benchmark does, else exact-match."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Annotated[
        str,
        typer.Option(help="auto (float32 on a CPU, else bfloat16), float32, bfloat16, float16."),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure zero-shot, ICL, kNN-ICL by picture and question, copying and M2IV on equal items.

    With --suite every method is measured on every task of a suite, cells are kept line by line.
    """
    _require_heard(context, dataset=dataset, suite=suite, vector=vector)
    if suite is not None:
        run_suite(
            suite=suite, backbone=backbone, revision=revision, device=device, dtype=dtype,
            methods=methods, items=items, seeds=seeds, shots=shots or "1,2,4,8,16,32",
            questions=questions, tasks=tuple(task or ()), output=output, is_kept_only=kept_only,
            as_json=as_json,
        )  # fmt: skip
        return
    if dataset is None:
        raise typer.BadParameter("wanted a data set, or --suite", param_hint="DATASET")
    from app.method.backbone.features import FeatureCache
    from app.method.backbone.loading import load_backbone
    from app.method.evaluation.report import evaluate as run
    from app.method.evaluation.tasks.loading import find_official, usual_splits
    from app.method.evaluation.tasks.vl_icl import SCORERS, find_task, load_episodes

    episodic = find_task(dataset)
    num_shots = read_shots(shots, usual=16 if episodic is None else 1)
    usual = CONDITIONS if episodic is None else EPISODIC
    wanted = read_conditions(condition, usual, has_vector=vector is not None)
    pool: Any = []
    if episodic is None:
        official = find_official(dataset)
        usual_scorer = "exact-match" if official is None else official[0].scorer
        source = support or dataset
        load = partial(
            load_local,
            seed=seed,
            columns=read_map(column_map, question),
            skip_bad=skip_bad,
            text_only=text_only,
        )
        asked = split or usual_splits(dataset)[1]
        is_shown = _is_shown(context, wanted, sources=(dataset, source))
        examples = load(dataset, split=asked, limit=limit)
        if is_shown:
            shown = support_split or usual_splits(source)[0]
            pool = named_alike(load(source, split=shown, limit=None), examples)
    else:
        refuse_given(context, _OF_ITEMS, "is not for VL-ICL, whose questions have all of that")
        episodic_task, folder = episodic
        usual_scorer = SCORERS[episodic_task]
        episodes = load_episodes(folder, episodic_task, shots=num_shots, limit=limit, seed=seed)
        examples = [episode.query for episode in episodes]
        pool = [episode.context for episode in episodes]
    loaded = load_backbone(backbone, revision=revision, device=device, dtype=dtype)
    cache = FeatureCache(loaded)
    console = plain_console(stderr=True)

    def measure(name: Method) -> Any:  # noqa: ANN401 - torch types stay out of the imports
        with console.status(f"{spelled([name])}: {len(examples)} items"):
            return run(
                loaded,
                examples,
                condition=steered_by(Path(vector or ""), loaded, strength=strength)
                if name == "m2iv"
                else unsteered(name, pool, shots=num_shots, seed=seed, is_episodic=bool(episodic)),
                scorer=scorer or usual_scorer,
                features=cache,
            )

    _report(wanted, measure, shots=num_shots, as_json=as_json)


def _require_heard(
    context: typer.Context, *, dataset: str | None, suite: str | None, vector: Path | None
) -> None:
    """Returns when nothing is given that would be passed over."""
    if suite is not None and dataset is not None:
        raise typer.BadParameter("wanted a data set or --suite, found both", param_hint="DATASET")
    if suite is None:
        refuse_given(context, _OF_SUITE, "is for --suite")
    else:
        refuse_given(context, _OF_DATA, "is for a data set")
    if vector is None:
        refuse_given(context, {"strength"}, "is for --vector")


def _is_shown(
    context: typer.Context, wanted: Sequence[Method], *, sources: tuple[str, str]
) -> bool:
    """Whether a condition reads labelled items; no option is given that would be passed over."""
    found = bool(set(wanted) - {"zero_shot", "m2iv"})
    if not found:
        refuse_given(context, _OF_SUPPORT, "is for conditions that read labelled items")
    refuse_unread(context, *dict.fromkeys(sources))
    return found


def _report(
    wanted: Sequence[Method], measure: Callable[[Method], Any], *, shots: int, as_json: bool
) -> None:
    """Prints what was measured, also where a condition among several is refused.

    Raises:
        VLibraryError: None could be measured.
    """
    from vlibrary_client.terminals import comparison_table

    rows: dict[Method, dict[str, Any]] = {}
    refused: dict[Method, VLibraryError] = {}
    for method in wanted:
        try:
            rows[method] = _figures(measure(method))
        except VLibraryError as error:
            refused[method] = error
    if not rows:
        raise next(iter(refused.values()))
    if as_json:
        refusals = {spelled([name]): {"refused": one.message} for name, one in refused.items()}
        found = {spelled([name]): row for name, row in rows.items()}
        print_json(found | refusals)
    else:
        conditions = {
            name: {**row, "prompt_tokens": row["prompt_tokens_mean"]} for name, row in rows.items()
        }
        title = f"{next(iter(rows.values()))['items']} items"
        show_table(comparison_table({"conditions": conditions, "shots": shots}, title=title))
    for name, one in refused.items():
        print(f"vlibrary: {spelled([name])}: {harmless(one.message)}", file=sys.stderr)
    if refused:
        raise typer.Exit(1)


def _figures(report: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        name: getattr(report, name)
        for name in (
            "accuracy", "low", "high", "items", "scorer", "shots", "labels",
            "prompt_tokens_mean", "ms_per_query",
        )
    }  # fmt: skip
