"""`vlibrary evaluate`: measure conditions on a local data set, without a server."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from app.cli.console import harmless, plain_console, show_table
from app.cli.local_datasets import ColumnMap, Question, load_local, read_map, refuse_unread
from app.cli.options import AsJson, Device, LocalBackbone, Revision, Seed, refuse_given
from app.cli.suite import run as run_suite
from app.core.errors import VLibraryError
from app.core.jobs import BALANCED_SHOTS, Method

EPISODIC: Final[tuple[Method, ...]] = ("zero_shot", "icl", "m2iv")
"""Where demonstrations come with every question."""
CONDITIONS: Final[tuple[Method, ...]] = (
    "zero_shot", "icl", "icl_balanced", "knn_icl", "nearest_copy", "m2iv"
)  # fmt: skip
_MOST_SHOTS: Final = 64
# Options that mean nothing without a suite, and with one.
_OF_SUITE: Final = {"methods", "items", "seeds", "questions", "task", "kept_only", "output"}
_OF_SUPPORT: Final = {"support", "support_split"}
_OF_ITEMS: Final = _OF_SUPPORT | {"split", "column_map", "question"}
_OF_DATA: Final = _OF_ITEMS | {"vector", "condition", "limit", "strength", "scorer", "seed"}


def _spelled(names: Iterable[Method]) -> str:
    """As the command writes and reads them."""
    return ", ".join(names).replace("_", "-")


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
        typer.Option(help=f"One of {_spelled(CONDITIONS)}; may be repeated."),
    ] = None,
    backbone: LocalBackbone = "pocket",
    revision: Revision = None,
    split: Annotated[
        str | None,
        typer.Option(help="Part that is asked: test; of a benchmark one with public answers."),
    ] = None,
    column_map: ColumnMap = None,
    question: Question = None,
    support_split: Annotated[
        str | None,
        typer.Option(help="Part that demonstrates: train; of a benchmark the one to learn from."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most items asked.")] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Demonstrations [16; of VL-ICL 1]; of a suite, those to choose from, with "
            "commas between [4,8,16,32]."
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
            methods=methods, items=items, seeds=seeds, shots=shots or "4,8,16,32",
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
    num_shots = _shots(shots, usual=16 if episodic is None else 1)
    usual = CONDITIONS if episodic is None else EPISODIC
    wanted = _wanted(condition, usual, has_vector=vector is not None)
    pool: Any = []
    if episodic is None:
        official = find_official(dataset)
        usual_scorer = "exact-match" if official is None else official[0].scorer
        source = support or dataset
        columns = read_map(column_map, question)
        asked = split or usual_splits(dataset)[1]
        is_shown = _is_shown(context, wanted, sources=(dataset, source))
        examples = load_local(dataset, split=asked, limit=limit, seed=seed, columns=columns)
        if is_shown:
            shown = support_split or usual_splits(source)[0]
            pool = load_local(source, split=shown, limit=None, seed=seed, columns=columns)
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
        with console.status(f"{_spelled([name])}: {len(examples)} items"):
            return run(
                loaded,
                examples,
                condition=_steered(Path(vector or ""), loaded, strength=strength)
                if name == "m2iv"
                else _unsteered(name, pool, shots=num_shots, seed=seed, is_episodic=bool(episodic)),
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
        refusals = {_spelled([name]): {"refused": one.message} for name, one in refused.items()}
        found = {_spelled([name]): row for name, row in rows.items()}
        print(json.dumps(found | refusals, indent=2))
    else:
        conditions = {
            name: {**row, "prompt_tokens": row["prompt_tokens_mean"]} for name, row in rows.items()
        }
        title = f"{next(iter(rows.values()))['items']} items"
        show_table(comparison_table({"conditions": conditions, "shots": shots}, title=title))
    for name, one in refused.items():
        print(f"vlibrary: {_spelled([name])}: {harmless(one.message)}", file=sys.stderr)
    if refused:
        raise typer.Exit(1)


def _shots(text: str | None, *, usual: int) -> int:
    found = text or str(usual)
    if not found.isdecimal() or not 1 <= int(found) <= _MOST_SHOTS:
        raise typer.BadParameter(
            f"wanted a whole number from 1 to {_MOST_SHOTS}, found {found}", param_hint="--shots"
        )
    return int(found)


def _wanted(
    conditions: list[str] | None, usual: tuple[Method, ...], *, has_vector: bool
) -> tuple[Method, ...]:
    if not conditions:
        return usual if has_vector else usual[:-1]
    known = {_spelled([name]): name for name in usual}
    if unknown := sorted(set(conditions) - set(known)):
        raise typer.BadParameter(
            f"wanted {_spelled(usual)}, found {', '.join(unknown)}", param_hint="--condition"
        )
    names = tuple(known[text] for text in conditions)
    if "m2iv" in names and not has_vector:
        raise typer.BadParameter("m2iv wants --vector", param_hint="--condition")
    if has_vector and "m2iv" not in names:
        raise typer.BadParameter("--vector is for m2iv", param_hint="--condition")
    return names


# Types of torch stay out of this module's imports.
def _unsteered(name: Any, pool: Any, *, shots: int, seed: int, is_episodic: bool) -> Any:  # noqa: ANN401
    from app.method.evaluation.conditions import fixed_contexts, in_context, zero_shot

    if name == "zero_shot":
        return zero_shot()
    if name == "icl" and is_episodic:
        return fixed_contexts(pool, shots=shots)
    most = {"icl_balanced": BALANCED_SHOTS, "nearest_copy": 1}.get(name, _MOST_SHOTS)
    return in_context(name, pool, shots=min(most, shots), seed=seed)


def _steered(path: Path, backbone: Any, *, strength: float) -> Any:  # noqa: ANN401
    from app.core.backbones import require_same_backbone
    from app.core.vectors.file import decode_vector_file
    from app.method.evaluation.conditions import steered
    from app.method.steering.vectors import InContextVectors
    from vlibrary_client.sharing.folders import FILE_NAME

    wanted = backbone.description
    content = (path / FILE_NAME if path.is_dir() else path).read_bytes()
    tensors, metadata = decode_vector_file(
        content, num_layers=wanted.num_layers, hidden_size=wanted.hidden_size
    )
    require_same_backbone(wanted=wanted.fingerprint, found=metadata["backbone"])
    labels = int(metadata["labels"]) if metadata.get("labels", "").isdecimal() else None
    vectors = InContextVectors.from_tensors(tensors)
    return steered(vectors, strength=strength, num_labels=labels)


def _figures(report: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        name: getattr(report, name)
        for name in (
            "accuracy", "low", "high", "items", "scorer", "shots", "labels",
            "prompt_tokens_mean", "ms_per_query",
        )
    }  # fmt: skip
