"""What renaming the backbone's own answers gains: a table of words learnt from the same labels."""

from collections.abc import Sequence

from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.baselines.word_table import fit, look_up
from app.method.evaluation.conditions import zero_shot
from app.method.evaluation.metrics import exact_match
from app.method.evaluation.report import evaluate

MAX_NEW_TOKENS = 8


def said(backbone: Backbone, examples: Sequence[Example], *, features: FeatureCache) -> list[str]:
    """The zero-shot answer to each item."""
    report = evaluate(
        backbone,
        examples,
        condition=zero_shot(),
        features=features,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    return list(report.texts)


def num_right(examples: Sequence[Example], answers: Sequence[str]) -> int:
    """How many of the answers are right."""
    return sum(
        exact_match(answer, example.answers) == 1.0
        for answer, example in zip(answers, examples, strict=True)
    )


def renamed(items: Sequence[Example], said_of: Sequence[str], asked: Sequence[str]) -> list[str]:
    """What was said to the questions asked, by the table that labelled items make.

    Args:
        items: With labels.
        said_of: The zero-shot answer to each of them.
        asked: The zero-shot answers to the questions.
    """
    table = fit(said_of, [item.answer for item in items])
    return [look_up(table, text) for text in asked]
