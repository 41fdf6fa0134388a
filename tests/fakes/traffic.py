"""Requests that come and go while an engine runs."""

from dataclasses import dataclass

from hypothesis import strategies as st

from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from tests.fakes.alone import SHARP, Wish, bare_backbone

Visits = list[tuple["Visit", Sequence]]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A request that joins before step `joins` and is cancelled after `patience` further steps."""

    wish: Wish
    joins: int = 0
    patience: int | None = None


def wishes() -> st.SearchStrategy[Wish]:
    return st.builds(
        Wish,
        seed=st.integers(1, 6),
        length=st.integers(5, 14),
        shows_image=st.sampled_from([True, True, False]),
        vector=st.integers(0, 3),
        strength=st.sampled_from([1.0, -2.0, 0.5, 0.0]),
        max_new_tokens=st.integers(1, 9),
        temperature=st.sampled_from([0.0, SHARP]),
    )


def visits() -> st.SearchStrategy[Visit]:
    patience = st.one_of(st.none(), st.none(), st.integers(0, 6))
    return st.builds(Visit, wish=wishes(), joins=st.integers(0, 8), patience=patience)


def run_visits(engine: Engine, plan: list[Visit], *, family: str) -> tuple[Visits, Visits]:
    """Who stayed to the end, in the order of their ends, and who was cancelled."""
    backbone = bare_backbone(family)
    made = {
        str(place): (
            visit,
            Sequence(
                id=str(place),
                inputs=visit.wish.inputs(family),
                sampling=visit.wish.sampling(),
                shift=visit.wish.shift(backbone),
            ),
        )
        for place, visit in enumerate(plan)
    }
    stayed: Visits = []
    left: Visits = []
    step = 0
    last = max(visit.joins for visit in plan)
    while step <= last or engine.has_work:
        for name, (visit, sequence) in made.items():
            if visit.joins == step:
                engine.add(sequence)
            elif visit.patience is not None and visit.joins + visit.patience == step:
                running = engine.num_running + engine.num_waiting
                if engine.abort(name):
                    assert engine.num_running + engine.num_waiting == running - 1
                    left.append(made[name])
        stayed += [made[one.id] for one in engine.step()]
        step += 1
    return stayed, left
