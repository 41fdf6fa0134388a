"""Requests that come and go while an engine runs."""

from dataclasses import dataclass

from hypothesis import strategies as st

from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from tests.fakes.alone import SHARP, Wish, answer_alone, bare_backbone
from tests.fakes.family_configs import FAMILIES

# Softcapping of its attention exists in eager mode only.
_EAGER_ONLY = {"paligemma2"}
COMBINATIONS = [
    (family, attention)
    for family in sorted(FAMILIES)
    for attention in ("sdpa", "eager")
    if attention == "eager" or family not in _EAGER_ONLY
]

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
        is_known=st.booleans(),
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
                inputs=visit.wish.served(family),
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


def check_visits(family: str, attention: str, plan: list[Visit], *, max_rows: int) -> None:
    """Every token is that of the request alone, every receipt is full, and nothing is left."""
    engine = Engine(bare_backbone(family, attention), max_rows=max_rows)
    try:
        stayed, left = run_visits(engine, plan, family=family)
    finally:
        engine.close()
    for visit, sequence in stayed:
        assert sequence.error is None
        assert tuple(sequence.token_ids) == answer_alone(family, attention, visit.wish)
        assert sequence.sites_hit == (engine.num_sites if visit.wish.vector else 0)
    for visit, sequence in left:
        alone = answer_alone(family, attention, visit.wish)
        assert tuple(sequence.token_ids) == alone[: len(sequence.token_ids)]
    assert (engine.num_running, engine.num_waiting) == (0, 0)
