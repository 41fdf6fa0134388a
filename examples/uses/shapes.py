"""Questions about easy-VQA's coloured shapes, and what is needed to ask them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.evaluation.conditions import Condition, steered, zero_shot
from app.method.evaluation.report import evaluate
from app.method.evaluation.tasks.loading import load_examples
from app.method.steering.vectors import InContextVectors
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train

SHAPES = ("circle", "triangle", "rectangle")
_READ = 4000


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A backbone with how much it is asked.

    Attributes:
        backbone: Who answers.
        features: Its vision features.
        items: Labelled items of a training.
        questions: Test questions.
        steps: Most optimiser steps.
    """

    backbone: Backbone
    features: FeatureCache
    items: int
    questions: int
    steps: int

    def train(self, items: Sequence[Example]) -> InContextVectors:
        """Vectors for these items with the usual settings."""
        config = TrainingConfig(max_steps=self.steps)
        return train(self.backbone, items, config, features=self.features).vectors

    def ask(self, items: Sequence[Example], condition: Condition) -> list[str]:
        """What is answered to each item, without capitals."""
        report = evaluate(
            self.backbone, items, condition=condition, features=self.features, max_new_tokens=8
        )
        return [text.strip().casefold() for text in report.texts]

    def accuracy(
        self,
        items: Sequence[Example],
        vectors: InContextVectors | None = None,
        *,
        strength: float = 1.0,
    ) -> float:
        """The share of items answered exactly, with vectors or without."""
        condition = zero_shot() if vectors is None else steered(vectors, strength=strength)
        said = self.ask(items, condition)
        return sum(a == b.answer for a, b in zip(said, items, strict=True)) / len(items)


@cache
def _facts(split: str) -> list[tuple[Example, str, str]]:
    shapes: dict[str, str] = {}
    colors: dict[str, str] = {}
    items: dict[str, Example] = {}
    for item in load_examples("easy-vqa", split=split, limit=_READ, seed=0):
        items.setdefault(item.image_id, item)
        if item.answer in SHAPES:
            shapes[item.image_id] = item.answer
        elif item.answer not in {"yes", "no"}:
            colors[item.image_id] = item.answer
    known = sorted(shapes.keys() & colors.keys())
    return [(items[name], shapes[name], colors[name]) for name in known]


def facts(split: str, count: int) -> list[tuple[Example, str, str]]:
    """So many pictures whose questions tell both facts, with shape and colour."""
    return _facts(split)[:count]


def ask_about(
    known: Sequence[tuple[Example, str, str]],
    question: str,
    answer: Callable[[str, str], str],
) -> list[Example]:
    """The same question about every picture; the answer is made from shape and colour."""
    return [
        replace(item, question=question, answers=(answer(shape, color),))
        for item, shape, color in known
    ]
