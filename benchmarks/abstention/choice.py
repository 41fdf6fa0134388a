"""The law's settings chosen on one half of the pools, and judged on the other half.

What is chosen on all tasks looks better on them than on the next ones. Pools are dealt out rather
than tasks, so that no picture of the judged half chose anything. In memory, on the library's own
index.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import fmean
from typing import Any, Final

import numpy as np

from app.core.identifiers import new_id
from app.library.search.index import Snapshot
from app.library.search.parts import LEAD_REFUSALS
from app.library.task_keys import VectorKeys
from app.method.keys.encoder import KeyEncoder
from app.method.keys.task_key import IMAGE_DEVIATIONS, build_task_key
from benchmarks.abstention.figures import NOTHING, Answer, accepted, refused, right, summary
from benchmarks.abstention.library import ITEMS, QUERIES, Rows, rows_of
from benchmarks.abstention.pictures import SOURCES
from benchmarks.abstention.tasks import Task

# What is chosen may refuse so many of a task's own queries on average.
MOST_REFUSALS: Final = 0.04
_QUERIES_TO_CHOOSE: Final = 10
_BACKBONE: Final = "backbone"
_VIEWS: Final = ("tower", "appearance", "contours")


@dataclass(frozen=True, kw_only=True)
class Law:
    """Settings of the law: what is looked at, and how much of its own a task gives up."""

    views: tuple[str, ...] = _VIEWS
    image_deviations: float = IMAGE_DEVIATIONS
    lead_refusals: float = LEAD_REFUSALS


LAWS: Final = tuple(
    Law(views=views, image_deviations=image, lead_refusals=lead)
    for views, image, lead in product(
        (_VIEWS, ("tower", "appearance"), ("appearance", "contours"), ("tower",)),
        (2.25, 2.75, 3.25),
        (0.0, 0.05, 0.1),
    )
)


def choose_on_halves(
    encoder: KeyEncoder, tasks: Sequence[Task], *, splits: int, queries: int, seed: int
) -> dict[str, Any]:
    """The figures of laws on tasks that did not choose them.

    Args:
        encoder: Makes the rows.
        tasks: Stored and foreign ones; those that only answers tell apart do not count.
        splits: How often the pools are dealt out anew.
        queries: Of each judged task.
        seed: Of the dealing, and of items and queries.
    """
    told = [task for task in tasks if task.same_as is None]
    rows = {}
    for task in told:
        for part, count in ((ITEMS, task.items), (QUERIES, queries)):
            rows[task.name, part] = rows_of(encoder, task, count, seed=2 * seed + part)
    half = _Half(rows, view_widths=encoder.view_widths)
    found: list[dict[str, Any]] = []
    for number in range(splits):
        chosen_on, judged_on = _deal(told, seed=seed + number)
        law = half.choose(chosen_on)
        found.append(
            {
                "law": asdict(law),
                "chosen_on": sorted({task.pool for task in chosen_on}),
                "judged": half.figures(judged_on, law=law),
                "product": half.figures(judged_on, law=Law()),
            }
        )
    return {
        "splits": splits,
        "laws": len(LAWS),
        "judged": _mean(one["judged"] for one in found),
        "product": _mean(one["product"] for one in found),
        "each": found,
    }


def _mean(figures: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    every = list(figures)
    return {
        name: {
            "mean": round(fmean(one[name]["mean"] for one in every), 4),
            "worst_split": round(_worst(name)(one[name]["mean"] for one in every), 4),
        }
        for name in every[0]
    }


def _worst(name: str) -> Any:  # noqa: ANN401 - min or max
    return min if name == "top1" else max


def _deal(tasks: Sequence[Task], *, seed: int) -> tuple[list[Task], list[Task]]:
    """Two halves that share no pool, the first the larger by at most one group of pools."""
    group = {pool: name for name, pools in SOURCES.items() for pool in pools}
    pools = sorted({group.get(task.pool, task.pool) for task in tasks})
    order = np.random.default_rng([seed, len(pools)]).permutation(len(pools))
    first = {pools[place] for place in order[: (len(pools) + 1) // 2]}
    halves: tuple[list[Task], list[Task]] = ([], [])
    for task in tasks:
        halves[group.get(task.pool, task.pool) not in first].append(task)
    return halves


class _Half:
    def __init__(self, rows: Mapping[tuple[str, int], Rows], *, view_widths: Sequence[int]) -> None:
        self._rows = rows
        ends = np.cumsum(view_widths)
        self._views = {
            name: slice(int(end) - width, int(end))
            for name, end, width in zip(_VIEWS, ends, view_widths, strict=True)
        }
        self._width = int(ends[-1])

    def choose(self, tasks: Sequence[Task]) -> Law:
        """The law with the fewest false accepts of those that refuse little."""

        def rank(law: Law) -> tuple[bool, float, float]:
            found = self.figures(tasks, law=law, queries=_QUERIES_TO_CHOOSE)
            accepts = found["false_accept"]["mean"] + found["left_out"]["mean"]
            refusals = found["false_refusal"]["mean"]
            return refusals > MOST_REFUSALS, accepts, refusals

        return min(LAWS, key=rank)

    def figures(
        self, tasks: Sequence[Task], *, law: Law, queries: int | None = None
    ) -> dict[str, Any]:
        """The rates over a library of the stored ones of these tasks."""
        stored = [task for task in tasks if task.is_stored]
        keys = [self._key(task, law=law) for task in stored]
        width = sum(self._views[name].stop - self._views[name].start for name in law.views)
        whole = self._snapshot(keys, width=width, law=law)
        asked = {
            task.name: self._seen(self._rows[task.name, QUERIES][:queries], law=law)
            for task in tasks
        }
        found = {name: _ask(whole, rows) for name, rows in asked.items()}
        own = {task.name: found[task.name] for task in stored}
        left_out = {}
        for task, key in zip(stored, keys, strict=True):
            others = [one for one in keys if one is not key]
            left_out[task.name] = _ask(
                self._snapshot(others, width=width, law=law), asked[task.name]
            )
        return {
            "top1": summary(own, right),
            "false_accept": summary(
                {task.name: found[task.name] for task in tasks if not task.is_stored}, accepted
            ),
            "left_out": summary(left_out, accepted),
            "false_refusal": summary(own, refused),
        }

    def _seen(self, rows: Rows, *, law: Law) -> Rows:
        """The rows as if nothing else had been looked at."""
        image = np.concatenate([rows[:, self._views[name]] for name in law.views], axis=1)
        # Each part of a row has the length sqrt(1/2).
        image = image / np.linalg.norm(image, axis=1, keepdims=True) * np.sqrt(0.5)
        seen: Rows = np.concatenate([image, rows[:, self._width :]], axis=1).astype(np.float32)
        return seen

    def _key(self, task: Task, *, law: Law) -> VectorKeys:
        rows = self._seen(self._rows[task.name, ITEMS], law=law)
        width = rows.shape[1] - (self._rows[task.name, ITEMS].shape[1] - self._width)
        key = build_task_key(rows, image_width=width, image_deviations=law.image_deviations)
        return VectorKeys(
            vector_id=new_id(),
            name=task.name,
            backbone_fingerprint=_BACKBONE,
            status="ready",
            embeddings=key.exemplars,
            threshold=key.threshold,
            text_threshold=key.text_threshold,
        )

    @staticmethod
    def _snapshot(keys: Sequence[VectorKeys], *, width: int, law: Law) -> Snapshot:
        dimension = keys[0].embeddings.shape[1]
        return Snapshot.build(
            "space",
            epoch=1,
            dimension=dimension,
            keys=keys,
            image_width=width,
            lead_refusals=law.lead_refusals,
        )


def _ask(snapshot: Snapshot, rows: Rows) -> list[Answer]:
    answers = []
    for row in rows:
        hits = snapshot.search(row, backbone_fingerprint=_BACKBONE, statuses=("ready",), k=1)
        is_found = bool(hits) and hits[0].is_accepted
        answers.append(Answer(name=hits[0].name if is_found else NOTHING))
    return answers
