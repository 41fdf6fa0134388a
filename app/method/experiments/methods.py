"""Every method by its name in the tables, as a condition that test items are asked under."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from app.core.errors import JSON, InvalidInputError
from app.core.jobs import RULES, Rule
from app.method.adaptation.problem import Adaptation, Problem
from app.method.baselines import (
    function_vector,
    hificl,
    i2cl,
    icv,
    live,
    lora,
    mimic,
    mtv,
    prefix,
    prompt,
    task_vector,
    word_table,
)
from app.method.evaluation.conditions import (
    Condition,
    InContext,
    in_context,
    steered,
    zero_shot,
)
from app.method.experiments.trial import KINDS, Trial, combine_chunks
from app.method.steering.vectors import TENSOR_NAMES, InContextVectors
from app.method.training.configuration import TrainingConfig, read_settings
from app.method.training.distillation import train

FITTED: Final[dict[str, Callable[[Problem], Adaptation]]] = {
    "task_vector": task_vector.fit,
    "function_vector": function_vector.fit,
    "icv": icv.fit,
    "i2cl": i2cl.fit,
    "live": live.fit,
    "mtv": mtv.fit,
    "mimic": mimic.fit,
    "lora": lora.fit,
    "prefix": prefix.fit,
    "prompt": prompt.fit,
    "hificl": hificl.fit,
}
BY_GRADIENTS: Final = frozenset({"hificl", "i2cl", "live", "lora", "mimic", "prefix", "prompt"})
M2IV: Final = "m2iv"
SUPERVISION_ONLY: Final = "supervision_only"
WORD_TABLE: Final = "word_table"
_CHUNKED: Final[dict[str, Rule]] = {f"chunks_{rule}": rule for rule in RULES}
_IN_CONTEXT: Final[dict[str, InContext]] = {kind: kind for kind in KINDS}
_SUPERVISED: Final = TrainingConfig(mimicry_weight=0.0, synergy_weight=0.0)
_MOST_SHOTS: Final = 16
_RATE: Final = "vector_learning_rate"
_OF_GRADIENTS: Final = frozenset({"augmented_views", "max_steps", _RATE})
# The draw has the seed, and whatever is asked there has no instruction.
_OF_THE_SUITE: Final = frozenset({"seed", "instruction"})

DEFAULTS: Final = (
    *("zero_shot", "icl_16", "icl_best", "icl_best_16", "knn_icl_16", "nearest_copy"),
    *(WORD_TABLE, *FITTED, SUPERVISION_ONLY, M2IV),
)

_UNTRIED: Final = f"{M2IV}:trial_steps=0"
ABLATIONS: Final = (
    *(M2IV, SUPERVISION_ONLY, _UNTRIED),
    *(f"{_UNTRIED}:{loss}_weight=0" for loss in ("mimicry", "supervision", "synergy")),
    *(f"{_UNTRIED}:branches={branch}" for branch in ("attention", "mlp")),
    f"{_UNTRIED}:mimicry_of=all",
    *(f"{_UNTRIED}:shots={shots}" for shots in (4, 8, 24)),
    *(f"{_UNTRIED}:num_queries={number}" for number in (16, 32)),
    *(f"{_UNTRIED}:contexts_per_query={number}" for number in (1, 4)),
    f"{_UNTRIED}:temperature=2",
    *(f"{_UNTRIED}:vector_learning_rate={rate}" for rate in (0.03, 0.3)),
)
"""Each loss, branch, number of shots, queries and contexts, the temperature and the rate.

The losses are kept as they are given: where a trial chooses the labels alone, no row that changes
the teacher would differ.
"""
MANY_SHOT: Final = (
    *(f"icl_{shots}" for shots in (16, 32, 64, 128, 256)),
    *(f"chunks_{rule}_16" for rule in RULES),
    M2IV,
)
"""Demonstrations as far as the context goes, and vectors of 16 items each, by every rule."""
SETS: Final = {"all": DEFAULTS, "ablations": ABLATIONS, "many_shot": MANY_SHOT}

ALONE: Final = frozenset({"zero_shot"})
"""Methods that no labelled item and no seed can change."""


Prepared: TypeAlias = tuple[Condition, dict[str, Any]]
"""How items are asked, and what a cell says of the method itself: some fields of `CellResult`."""
_Prepare: TypeAlias = Callable[[Trial], Prepared]


def expand(text: str) -> tuple[str, ...]:
    """The methods that names with commas between mean, those of `SETS` among them."""
    found = [one for name in text.split(",") for one in SETS.get(name, (name,))]
    return tuple(dict.fromkeys(found))


def find_method(name: str) -> _Prepare:
    """What gets a method ready.

    Args:
        name: A name of `DEFAULTS`; `icl_N`, `icl_balanced_N` or `knn_icl_N`; `icl_best_N` with at
            most N demonstrations; `chunks_RULE_N`, vectors of chunks of N items combined by a rule
            of `RULES`; `m2iv` or `supervision_only`, with training settings behind
            colons: `m2iv:branches=attention:shots=8`; what is fitted by gradients takes some of
            them, `lora:max_steps=300:vector_learning_rate=0.03`.

    Raises:
        InvalidInputError: There is no such method, or it has no such setting.
    """
    head, *settings = name.split(":")
    if head in {M2IV, SUPERVISION_ONLY}:
        config = _config(head, settings)
        return lambda trial: _trained(trial, config)
    if head in BY_GRADIENTS:
        return _fitting(head, **_fit_settings(head, settings))
    kind, _, count = name.rpartition("_")
    if count.isdecimal():
        number = int(count)
        if kind in _CHUNKED:
            return lambda trial: _of_chunks(trial, rule=_CHUNKED[kind], size=number)
        if kind == "icl_best":
            return lambda trial: _best_in_context(trial, number)
        if kind in _IN_CONTEXT:
            return lambda trial: (trial.in_context(_IN_CONTEXT[kind], number), {})
    plain: dict[str, _Prepare] = {
        "zero_shot": lambda _trial: (zero_shot(), {}),
        "nearest_copy": lambda trial: (
            in_context("nearest_copy", trial.problem.items, shots=1),
            {},
        ),
        "icl_best": lambda trial: _best_in_context(trial, max(trial.shots)),
        WORD_TABLE: _translating,
        **{known: _fitting(known) for known in FITTED.keys() - BY_GRADIENTS},
    }
    if name not in plain:
        raise InvalidInputError(
            f"Unknown method: wanted one of {', '.join(DEFAULTS)}, icl_N, icl_balanced_N, "
            f"knn_icl_N, icl_best_N, chunks_RULE_N or m2iv:SETTING=VALUE, found {name}"
        )
    return plain[name]


def _config(head: str, settings: list[str]) -> TrainingConfig:
    changes = read_settings(settings)
    if known := sorted(_OF_THE_SUITE & changes.keys()):
        raise InvalidInputError(f"Unknown settings of {head} in a suite: found {', '.join(known)}")
    base = _SUPERVISED if head == SUPERVISION_ONLY else TrainingConfig()
    return base.changed(**changes)


def _fit_settings(head: str, settings: list[str]) -> dict[str, Any]:
    """What is changed of a `Problem`: settings that a fit by gradients shares with a training."""
    changes = read_settings(settings)
    if others := changes.keys() - _OF_GRADIENTS:
        raise InvalidInputError(
            f"Unknown settings of {head}: wanted {', '.join(sorted(_OF_GRADIENTS))}, "
            f"found {', '.join(sorted(others))}"
        )
    checked = TrainingConfig().changed(**changes)
    found = {name: getattr(checked, name) for name in changes}
    return {"rate" if name == _RATE else name: value for name, value in found.items()}


def _trained(trial: Trial, config: TrainingConfig) -> Prepared:
    problem = trial.problem
    settings = config.changed(seed=problem.seed)
    result = train(problem.backbone, problem.items, settings, features=problem.features)
    notes: dict[str, JSON] = {
        **result.recipe,
        "status": result.verdict.status,
        "teacher_accuracy": result.teacher_accuracy,
        "norms": result.vectors.to_tensors().norms(),
    }
    return _steering(trial, result.vectors, seconds=result.seconds, notes=notes)


def _of_chunks(trial: Trial, *, rule: Rule, size: int) -> Prepared:
    found, seconds = combine_chunks(trial, rule=rule, size=size)
    notes: dict[str, JSON] = {"rule": rule, "weights": list(found.weights)}
    return _steering(trial, found.vectors, seconds=seconds, notes=notes)


def _steering(
    trial: Trial, vectors: InContextVectors, *, seconds: float, notes: dict[str, JSON]
) -> Prepared:
    return steered(vectors, num_labels=len(trial.problem.items)), {
        "train_seconds": seconds,
        "parameters": sum(getattr(vectors, name).numel() for name in TENSOR_NAMES),
        "notes": notes,
        "kind": "shift",
    }


def _fitting(name: str, **settings: Any) -> _Prepare:  # noqa: ANN401 - of several types
    def prepare(trial: Trial) -> Prepared:
        began = time.monotonic()
        count = len(trial.problem.items)
        shots = min(_MOST_SHOTS, count - 1)
        found = FITTED[name](replace(trial.problem, shots=shots, **settings))
        return Condition(name=name, applied=found.applied, num_labels=count), {
            "train_seconds": time.monotonic() - began,
            "parameters": found.num_parameters,
            "notes": found.notes,
            "kind": found.kind,
        }

    return prepare


def _translating(trial: Trial) -> Prepared:
    """Zero-shot, with a table of what its answers to the labelled items ought to have been."""
    items = trial.problem.items
    outputs = trial.ask(items, zero_shot()).texts
    table = word_table.fit(outputs, [item.answer for item in items])
    translate = partial(word_table.look_up, table)
    return Condition(name=WORD_TABLE, translate=translate, num_labels=len(items)), {}


def _best_in_context(trial: Trial, most: int) -> Prepared:
    began = time.monotonic()
    kind, shots = trial.best_in_context(most)
    seconds = time.monotonic() - began
    about = {"train_seconds": seconds, "notes": {"kind": kind, "shots": shots}}
    return trial.in_context(kind, shots), about
