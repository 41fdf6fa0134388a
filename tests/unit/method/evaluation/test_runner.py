from typing import Any

import pytest
import torch

from app.core.errors import IncompatibleBackboneError, InvalidInputError
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt
from app.method.evaluation.conditions import in_context, steered, zero_shot
from app.method.evaluation.report import ConditionReport, evaluate
from app.method.steering.greedy import generate_encoded
from app.method.steering.vectors import InContextVectors
from tests.fakes.models.backbones import HIDDEN, LAYERS, tiny_backbone, tiny_examples
from tests.fakes.models.generation import generate

EXAMPLES = tiny_examples(10)
SUPPORT = tiny_examples(12, seed=4)


@pytest.fixture(scope="module")
def asked() -> Backbone:
    return tiny_backbone(seed=2)


def vectors(size: float = 1.0, *, layers: int = LAYERS) -> InContextVectors:
    generator = torch.Generator().manual_seed(0)
    return InContextVectors(
        attention_vectors=torch.randn((layers, HIDDEN), generator=generator) * size,
        mlp_vectors=torch.randn((layers, HIDDEN), generator=generator) * size,
        attention_weights=torch.ones(layers),
        mlp_weights=torch.ones(layers),
    )


def texts(report: ConditionReport) -> list[str]:
    return list(report.texts)


def test_batched_answers_are_those_of_each_item_alone(
    asked: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def generate_noted(*args: Any, **options: Any) -> list[tuple[int, ...]]:  # noqa: ANN401
        answers = generate_encoded(*args, **options)
        sizes.append(len(answers))
        return answers

    monkeypatch.setattr("app.method.evaluation.report.generate_encoded", generate_noted)
    report = evaluate(
        asked,
        EXAMPLES,
        condition=steered(vectors(), strength=0.5),
        token_budget=100,
        max_new_tokens=4,
    )
    num_tokens = 0
    for example, text in zip(EXAMPLES, report.texts, strict=True):
        prompt = build_prompt(asked, example.question, example.pictures)
        shifts = vectors().shift(0.5)[None]
        alone = generate(asked, [prompt], shifts=shifts, max_new_tokens=4)[0]
        assert text == alone.text
        num_tokens += alone.num_prompt_tokens
    assert report.prompt_tokens_mean == num_tokens / len(EXAMPLES)
    assert sum(sizes) == 10
    assert len(sizes) > 2


def test_conditions_differ_and_strength_zero_is_zero_shot(asked: Backbone) -> None:
    reports = {
        name: evaluate(asked, EXAMPLES, condition=condition, max_new_tokens=4)
        for name, condition in {
            "zero": zero_shot(),
            "icl": in_context("icl", SUPPORT, shots=3),
            "knn": in_context("knn_icl", SUPPORT, shots=3),
            "m2iv": steered(vectors()),
            "nothing": steered(vectors(), strength=0.0),
        }.items()
    }
    assert texts(reports["nothing"]) == texts(reports["zero"])
    assert texts(reports["m2iv"]) != texts(reports["zero"])
    assert reports["icl"].prompt_tokens_mean > 3 * reports["zero"].prompt_tokens_mean
    assert reports["knn"].shots == 3
    assert reports["m2iv"].prompt_tokens_mean == reports["zero"].prompt_tokens_mean
    assert [report.condition for report in reports.values()] == [
        "zero_shot",
        "icl",
        "knn_icl",
        "m2iv",
        "m2iv",
    ]
    assert all(report.ms_per_query > 0 for report in reports.values())


def test_of_the_support_only_what_is_shown_is_looked_at(asked: Backbone) -> None:
    condition = in_context("icl", tiny_examples(30, seed=5), shots=2)
    features = FeatureCache(asked)
    evaluate(asked, EXAMPLES[:2], condition=condition, max_new_tokens=1, features=features)
    asked_about = {picture.digest for item in EXAMPLES[:2] for picture in item.pictures}
    known = {
        picture.digest
        for item in (*EXAMPLES[:2], *condition.support)
        for picture in item.pictures
        if features.is_cached(picture)
    }
    assert asked_about <= known
    assert 1 <= len(known - asked_about) <= 4


def test_scores_and_interval_follow_the_answers(asked: Backbone) -> None:
    report = evaluate(asked, EXAMPLES, condition=zero_shot(), scorer="vqa", max_new_tokens=2)
    assert (report.accuracy, report.items, report.scorer) == (0.0, 10, "vqa")
    assert report.low == 0.0 < report.high


def test_what_cannot_be_measured_is_refused(asked: Backbone) -> None:
    with pytest.raises(InvalidInputError, match="wanted items"):
        evaluate(asked, [], condition=zero_shot())
    with pytest.raises(InvalidInputError, match="Unknown scorer"):
        evaluate(asked, EXAMPLES, condition=zero_shot(), scorer="nice")
    with pytest.raises(IncompatibleBackboneError):
        evaluate(asked, EXAMPLES, condition=steered(vectors(layers=2)))
