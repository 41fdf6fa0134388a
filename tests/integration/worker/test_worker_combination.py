"""Jobs that combine stored vectors, in a real database, on a tiny random backbone."""

from collections.abc import Sequence

import pytest

from app.core.errors import JSON
from app.core.vectors.card import VectorCard
from app.core.vectors.file import decode_vector_file
from app.library.evaluations import list_evaluations
from app.library.records import DatasetRecord, JobRecord, VectorRecord
from app.library.vector_rows import get_blob
from app.library.vectors import create_vector, get_vector
from tests.fakes.models.backbones import tiny_examples
from tests.fakes.shop import Shop

pytestmark = pytest.mark.anyio


async def combine(shop: Shop, dataset: DatasetRecord, parts: Sequence[VectorRecord]) -> JobRecord:
    order: dict[str, JSON] = {
        "rule": "weighted",
        "seed": 3,
        "parts": [str(part.id) for part in parts],
    }
    return await shop.run(dataset, {"combine": order}, name="whole", tags=["test"])


async def test_a_combination_is_stored_with_its_parents_and_its_measurement(shop: Shop) -> None:
    learnt = await shop.dataset("learnt", tiny_examples(8))
    given = await shop.dataset("given", tiny_examples(32, seed=1))
    parts = [await shop.vector(0, dataset=learnt), await shop.vector(1)]
    job = await combine(shop, given, parts)
    assert (job.state, job.error_message) == ("succeeded", None)
    report = job.report
    assert report is not None
    # The same squares were drawn for both.
    shared = len(
        {item.image.digest for item in tiny_examples(8) if item.image}
        & {item.image.digest for item in tiny_examples(32, seed=1) if item.image}
    )
    assert report["left_out"] == 2 * shared > 0
    assert report["unchecked"] == ["part-1@1"]
    assert report["rule"] == "weighted"
    assert report["best_part"] in {"part-0@1", "part-1@1"}
    assert [part["vector"] for part in report["parts"]] == ["part-0@1", "part-1@1"]
    assert report["best_part"] in report["reason"]
    async with shop.sessions() as session:
        made = await get_vector(session, "whole")
        (measured,) = await list_evaluations(session, made.id)
        blobs = [await get_blob(session, one.id) for one in (*parts, made)]
    assert made.id == job.vector_id
    assert made.parents == (parts[0].id, parts[1].id)
    assert (made.job_id, made.dataset_sha256, made.method) == (job.id, given.sha256, "m2iv-sum")
    assert (made.shots, made.tags) == (16, ("test",))
    assert (measured.items, measured.accuracy) == (
        report["items"],
        report["conditions"]["m2iv"]["accuracy"],
    )
    weights = [part["weight"] for part in made.hyper_parameters["parts"]]
    assert weights == [part["weight"] for part in report["parts"]]
    first, second, whole = (decode_vector_file(blob)[0].shift() for blob in blobs)
    wanted = weights[0] * first + weights[1] * second
    assert abs(whole - wanted).max() < 1e-3


async def test_items_that_a_part_was_trained_on_neither_choose_nor_measure(shop: Shop) -> None:
    given = await shop.dataset("given", tiny_examples(24))
    parts = [await shop.vector(0, dataset=given), await shop.vector(1)]
    job = await combine(shop, given, parts)
    assert (job.state, job.error_code) == ("failed", "invalid-dataset")
    assert "that no part was trained on, with 8 pictures, found 0" in str(job.error_message)


async def test_what_parts_of_parts_were_trained_on_is_left_out_too(shop: Shop) -> None:
    given = await shop.dataset("given", tiny_examples(24))
    first = await shop.vector(0, dataset=given)
    description = shop.backbone.description
    async with shop.sessions() as session, session.begin():
        summed = await create_vector(
            session,
            name="sum",
            blob=await get_blob(session, first.id),
            backbone=description,
            card=VectorCard(status="ready", shots=8),
            parents=[first.id],
        )
    job = await combine(shop, given, [summed, await shop.vector(1)])
    assert (job.state, job.error_code) == ("failed", "invalid-dataset")
