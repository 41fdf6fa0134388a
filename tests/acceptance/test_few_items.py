"""Forty labelled items, sent through REST as a user would, make a vector that helps."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.method.backbone.examples import Example
from app.method.backbone.loading import POCKET_FOLDER
from app.method.evaluation.metrics import exact_match
from app.method.evaluation.tasks.loading import load_examples
from app.method.evaluation.verdict import CHANCE, paired_gain
from tests.fakes.servers.installation import Installation
from vlibrary_client import Client

NUM_LABELS = 40
NUM_QUESTIONS = 120


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """The bundled backbone in place of a random one: this test is about what is learnt."""
    return POCKET_FOLDER


def _picture(example: Example) -> bytes:
    (picture,) = example.pictures
    return picture.data


def _hits(client: Client, asked: Sequence[Example], *, vector: str | None) -> list[bool]:
    answers = [
        client.steer.generate(
            example.question, images=[_picture(example)], vector=vector, max_tokens=8
        )
        for example in asked
    ]
    return [
        exact_match(answer.text, example.answers) == 1.0
        for answer, example in zip(answers, asked, strict=True)
    ]


def test_forty_items_make_a_vector_that_is_found_and_better_than_zero_shot(
    installation: Installation,
) -> None:
    labelled = load_examples("easy-vqa", split="fit", limit=NUM_LABELS, seed=5)
    asked = load_examples("easy-vqa", split="validation", limit=NUM_QUESTIONS, seed=5)
    with installation.start() as client:
        items = [
            {"image": _picture(one), "question": one.question, "answer": one.answer}
            for one in labelled
        ]
        dataset = client.datasets.upload(items, name="shapes")
        job = client.train("shapes", dataset).wait(timeout=900)
        report = job.report
        assert report is not None
        # Every item measured, by vectors that had not seen it.
        assert report["items"] == NUM_LABELS
        assert {"m2iv", "zero_shot", "icl", "icl_balanced", "knn_icl", "nearest_copy"} < set(
            report["conditions"]
        )
        vector = client.vectors.get("shapes")
        assert vector.status == report["status"]
        assert vector.status in {"ready", "unproven"}
        assert vector.advice in report["advice"]
        assert vector.max_dose is not None
        found = client.retrieve(
            image=_picture(asked[0]),
            text=asked[0].question,
            only_ready=vector.status == "ready",
        )
        assert [match.vector.id for match in found.matches] == [vector.id]
        steered = _hits(client, asked, vector="shapes")
        gain = paired_gain(steered, _hits(client, asked, vector=None))
    assert gain.mean > 0
    assert gain.chance <= CHANCE
