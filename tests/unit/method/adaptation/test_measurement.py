from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw

from app.core.errors import ContextOverflowError, InvalidDatasetError, JobCancelledError
from app.core.jobs import ALWAYS, METHODS, Method
from app.core.pictures import Picture
from app.method.adaptation.measurement import measurement_steps
from app.method.adaptation.problem import Problem
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone, load_backbone
from app.method.evaluation.conditions import in_context, steered, zero_shot
from app.method.evaluation.report import evaluate
from app.method.steering.vectors import InContextVectors
from app.method.steps import finish
from app.method.training.progress import Reporter, TrainingProgress
from app.method.training.selection.comparison import Comparison
from tests.fakes.models.steered import random_vectors

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


@pytest.fixture(scope="module")
def pocket() -> Backbone:
    return load_backbone("pocket", device="cpu")


def squares(count: int, *, left: int = 0, usual: str | None = None) -> list[Example]:
    """White pictures with a square each; one more answer is the usual one, if given."""
    made = []
    for number in range(count):
        name = list(COLOURS)[number % 3]
        picture = Image.new("RGB", (64, 64), (255, 255, 255))
        corner = 10 + number + left
        ImageDraw.Draw(picture).rectangle([corner, 10, corner + 28, 40], fill=COLOURS[name])
        made.append(
            Example(
                image=Picture.of(picture),
                question="what color is the shape?",
                answers=(usual if usual and number % 2 else name,),
                image_id=f"{left}-{number}",
                id=str(number),
            )
        )
    return made


def measured(
    pocket: Backbone,
    vectors: InContextVectors,
    *,
    support: list[Example],
    methods: tuple[Method, ...] = METHODS,
    shots: int = 4,
    reporter: Reporter | None = None,
    heard: list[object] | None = None,
) -> Comparison:
    problem = Problem(
        items=support,
        validation=(),
        features=FeatureCache(pocket),
        shots=shots,
        seed=3,
    )
    steps = measurement_steps(
        problem, squares(9), vectors, methods=methods, reporter=reporter or Reporter()
    )
    return finish(steps, on_event=None if heard is None else heard.append)


def drawn(pocket: Backbone, *, scale: float) -> InContextVectors:
    wanted = pocket.description
    generator = torch.Generator().manual_seed(0)
    made = random_vectors(wanted.num_layers, wanted.hidden_size, generator=generator)
    return made.scaled(scale)


def test_every_method_is_as_right_as_its_generated_answers(pocket: Backbone) -> None:
    asked, support = squares(9), squares(12, left=12, usual="blue")
    vectors = drawn(pocket, scale=1500.0)
    heard: list[object] = []
    found = measured(pocket, vectors, support=support, heard=heard)
    wanted = {
        "m2iv": steered(vectors),
        "zero_shot": zero_shot(),
        "icl": in_context("icl", support, shots=4, seed=3),
        "icl_balanced": in_context("icl_balanced", support, shots=8, seed=3),
        "knn_icl": in_context("knn_icl", support, shots=4),
        "nearest_copy": in_context("nearest_copy", support, shots=1),
    }
    for name, condition in wanted.items():
        report = evaluate(pocket, asked, condition=condition)
        own = found.conditions[name]
        assert (own.accuracy, own.low, own.high) == (report.accuracy, report.low, report.high), name
        assert own.prompt_tokens == pytest.approx(report.prompt_tokens_mean, abs=0.05), name
    # The comparison would show nothing if all answered alike.
    assert len({one.accuracy for one in found.conditions.values()}) > 2
    assert found.conditions["majority"].accuracy == pytest.approx(1 / 3)
    assert found.conditions["majority"].labels == 12
    for name, gain in found.gains.items():
        difference = found.conditions["m2iv"].accuracy - found.conditions[name].accuracy
        assert gain.mean == pytest.approx(difference)
    assert set(found.gains) == set(METHODS) - {"m2iv"}
    assert found.milliseconds["zero_shot"] > 0
    assert found.milliseconds["nearest_copy"] == found.milliseconds["majority"] == 0
    told = [event for event in heard if isinstance(event, TrainingProgress)]
    # Five of the methods ask the backbone.
    assert (told[-1].phase, told[-1].step, told[-1].num_steps) == ("evaluate", 45, 45)


def test_a_copied_answer_is_held_to_the_letter_as_a_generated_one_is(pocket: Backbone) -> None:
    support = [
        replace(item, answers=(item.answer.title(),)) for item in squares(12, left=12, usual="blue")
    ]
    found = measured(
        pocket, drawn(pocket, scale=0.0), support=support, methods=("nearest_copy", "zero_shot")
    )
    # Whoever says Blue where the answer is blue does not say it.
    assert found.conditions["majority"].accuracy == 0
    assert found.conditions["nearest_copy"].accuracy == 0
    assert found.conditions["zero_shot"].accuracy > 0


def test_what_needs_no_demonstrations_is_always_measured(pocket: Backbone) -> None:
    found = measured(
        pocket, drawn(pocket, scale=0.0), support=squares(12, left=12), methods=("zero_shot",)
    )
    assert set(found.conditions) == set(ALWAYS)
    assert found.conditions["m2iv"].accuracy == found.conditions["zero_shot"].accuracy
    assert found.gains["zero_shot"].mean == 0


def test_fewer_items_than_shots_are_all_shown(pocket: Backbone) -> None:
    found = measured(
        pocket,
        drawn(pocket, scale=0.0),
        support=squares(3, left=12),
        methods=("icl", "knn_icl"),
        shots=16,
    )
    assert found.shots == found.conditions["icl"].labels == 3


def test_a_picture_never_demonstrates_itself(pocket: Backbone) -> None:
    with pytest.raises(InvalidDatasetError, match="found none for 1 items"):
        measured(pocket, drawn(pocket, scale=0.0), support=squares(1), methods=("knn_icl",))


def test_demonstrations_that_do_not_fit_are_refused(pocket: Backbone) -> None:
    with pytest.raises(ContextOverflowError):
        measured(
            pocket,
            drawn(pocket, scale=0.0),
            support=squares(20, left=12) * 20,
            methods=("icl",),
            shots=400,
        )


def test_a_measurement_stops_when_it_is_asked_to(pocket: Backbone) -> None:
    with pytest.raises(JobCancelledError):
        measured(
            pocket,
            drawn(pocket, scale=0.0),
            support=squares(3, left=12),
            reporter=Reporter(should_stop=lambda: True),
        )
