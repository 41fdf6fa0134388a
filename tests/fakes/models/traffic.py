"""Requests that come and go while an engine runs."""

from dataclasses import dataclass

from hypothesis import strategies as st

from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from tests.fakes.models.alone import SHARP, RequestSpec, answer_alone, bare_backbone
from tests.fakes.models.family_configs import FAMILIES

# Softcapping of its attention exists in eager mode only.
_EAGER_ONLY = {"paligemma2"}
COMBINATIONS = [
    (family, attention)
    for family in sorted(FAMILIES)
    for attention in ("sdpa", "eager")
    if attention == "eager" or family not in _EAGER_ONLY
]

Arrivals = list[tuple["Arrival", Sequence]]


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A request that joins before step `joins` and is cancelled after `patience` further steps."""

    spec: RequestSpec
    joins: int = 0
    patience: int | None = None


def request_specs() -> st.SearchStrategy[RequestSpec]:
    return st.builds(
        RequestSpec,
        seed=st.integers(1, 6),
        length=st.integers(5, 14),
        shows_image=st.sampled_from([True, True, False]),
        is_known=st.booleans(),
        vector=st.integers(0, 3),
        strength=st.sampled_from([1.0, -2.0, 0.5, 0.0]),
        max_new_tokens=st.integers(1, 9),
        temperature=st.sampled_from([0.0, SHARP]),
    )


def arrivals() -> st.SearchStrategy[Arrival]:
    patience = st.one_of(st.none(), st.none(), st.integers(0, 6))
    return st.builds(Arrival, spec=request_specs(), joins=st.integers(0, 8), patience=patience)


def run_arrivals(engine: Engine, plan: list[Arrival], *, family: str) -> tuple[Arrivals, Arrivals]:
    """Who stayed to the end, in the order of their ends, and who was cancelled."""
    backbone = bare_backbone(family)
    made = {
        str(place): (
            arrival,
            Sequence(
                id=str(place),
                inputs=arrival.spec.served(family),
                sampling=arrival.spec.sampling(),
                shift=arrival.spec.shift(backbone),
            ),
        )
        for place, arrival in enumerate(plan)
    }
    stayed: Arrivals = []
    left: Arrivals = []
    step = 0
    last = max(arrival.joins for arrival in plan)
    while step <= last or engine.has_work:
        for name, (arrival, sequence) in made.items():
            if arrival.joins == step:
                engine.add(sequence)
            elif arrival.patience is not None and arrival.joins + arrival.patience == step:
                running = engine.num_running + engine.num_waiting
                if engine.abort(name):
                    assert engine.num_running + engine.num_waiting == running - 1
                    left.append(made[name])
        stayed += [made[one.id] for one in engine.step()]
        step += 1
    return stayed, left


def check_arrivals(family: str, attention: str, plan: list[Arrival], *, max_rows: int) -> None:
    """Every token is that of the request alone, every receipt is full, and nothing is left."""
    backbone = bare_backbone(family, attention)
    engine = Engine(backbone, max_rows=max_rows)
    try:
        stayed, left = run_arrivals(engine, plan, family=family)
    finally:
        engine.close()
    for arrival, sequence in stayed:
        assert sequence.error is None
        assert tuple(sequence.token_ids) == answer_alone(family, attention, arrival.spec)
        assert sequence.sites_hit == (backbone.description.num_sites if arrival.spec.vector else 0)
    for arrival, sequence in left:
        alone = answer_alone(family, attention, arrival.spec)
        assert tuple(sequence.token_ids) == alone[: len(sequence.token_ids)]
    assert (engine.num_running, engine.num_waiting) == (0, 0)
