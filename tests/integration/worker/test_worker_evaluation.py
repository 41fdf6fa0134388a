"""Jobs that measure stored vectors, in a real database, on a tiny random backbone."""

import threading
from typing import Any

import pytest

from app.core.pixels import PIXELS_VERSION
from app.core.vectors.card import read_card
from app.core.vectors.file import decode_vector_file
from app.library.catalogue.transfer import current_file, load_file
from app.library.evaluations import list_evaluations
from app.library.records import DatasetRecord, JobRecord, VectorRecord
from app.library.vectors import delete_vector, get_vector
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from tests.fakes.models.backbones import tiny_examples
from tests.fakes.shop import Shop

pytestmark = pytest.mark.anyio


async def evaluate(
    shop: Shop,
    dataset: DatasetRecord,
    vector: VectorRecord,
    *,
    fingerprint: str | None = None,
    **changes: object,
) -> JobRecord:
    order: dict[str, Any] = {
        "vector": str(vector.id),
        "support_split": None,
        "methods": ["icl", "nearest_copy"],
        "shots": 2,
        "items": 200,
        "seed": 3,
        **changes,
    }
    return await shop.run(dataset, {"evaluate": order}, name=vector.name, fingerprint=fingerprint)


async def test_a_measurement_is_attached_and_travels_with_the_file(shop: Shop) -> None:
    learnt = await shop.dataset("learnt", tiny_examples(8))
    given = await shop.dataset("given", tiny_examples(32, seed=1))
    vector = await shop.vector(0, dataset=learnt)
    job = await evaluate(shop, given, vector)
    assert (job.state, job.error_message) == ("succeeded", None)
    assert job.vector_id == vector.id
    report = job.report
    assert report is not None
    shared = len(
        {item.image.digest for item in tiny_examples(8) if item.image}
        & {item.image.digest for item in tiny_examples(32, seed=1) if item.image}
    )
    assert report["left_out"] == 2 * shared > 0
    assert report["items"] == 32 - report["left_out"]
    assert (report["unchecked"], report["shots"]) == ([], 2)
    assert set(report["conditions"]) == {"m2iv", "zero_shot", "majority", "icl", "nearest_copy"}
    assert set(report["gains"]) == {"zero_shot", "majority", "icl", "nearest_copy"}
    asking = report["conditions"]["icl"]
    assert asking["ms_per_query"] > 0
    assert asking["prompt_tokens"] > report["conditions"]["m2iv"]["prompt_tokens"] > 0
    async with shop.sessions() as session:
        (measured,) = await list_evaluations(session, vector.id)
        record = await get_vector(session, vector.id)
        blob, all_measured = await load_file(session, record)
    own = report["conditions"]["m2iv"]
    assert (measured.dataset, measured.split, measured.items) == ("given", "all", report["items"])
    assert (measured.accuracy, measured.low, measured.high) == (
        own["accuracy"],
        own["low"],
        own["high"],
    )
    assert (measured.icl, measured.knn_icl) == (asking["accuracy"], None)
    assert measured.details["gains"] == report["gains"]
    # One data set says nothing of others.
    assert record.status == vector.status
    _, metadata = decode_vector_file(current_file(blob, record=record, measured=all_measured))
    card = read_card(metadata)
    assert card is not None
    assert [(one.dataset, one.items) for one in card.evaluations] == [("given", report["items"])]


async def test_at_most_so_many_items_are_asked(shop: Shop) -> None:
    given = await shop.dataset("given", tiny_examples(24))
    job = await evaluate(shop, given, await shop.vector(0), items=5, methods=["zero_shot"])
    assert (job.state, job.error_message) == ("succeeded", None)
    assert job.report is not None
    assert (job.report["items"], job.report["unchecked"]) == (5, ["part-0@1"])


async def test_what_was_deleted_while_a_job_began_is_told_as_unchecked(shop: Shop) -> None:
    learnt = await shop.dataset("learnt", tiny_examples(8))
    given = await shop.dataset("given", tiny_examples(24, seed=1))
    vector = await shop.vector(0, dataset=learnt)
    await shop.objects.delete(learnt.storage_key)
    job = await evaluate(shop, given, vector, items=5, methods=["zero_shot"])
    assert (job.state, job.error_message) == ("succeeded", None)
    assert job.report is not None
    assert (job.report["left_out"], job.report["unchecked"]) == (0, ["part-0@1"])


async def test_the_tokenizer_is_asked_on_the_device_thread_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def made(backbone: Backbone) -> FeatureCache:
        threads.append(threading.current_thread().name)
        return FeatureCache(backbone)

    monkeypatch.setattr("app.worker.training.evaluation.FeatureCache", made)
    given = await shop.dataset("given", tiny_examples(8))
    job = await evaluate(shop, given, await shop.vector(0), items=1, methods=["zero_shot"])
    assert (job.state, threads) == ("succeeded", ["device"])


async def test_what_a_vector_was_trained_on_does_not_measure_it(shop: Shop) -> None:
    given = await shop.dataset("given", tiny_examples(8))
    vector = await shop.vector(0, dataset=given)
    job = await evaluate(shop, given, vector)
    assert (job.state, job.error_code) == ("failed", "invalid-dataset")
    assert "it was not trained on, found none among 8" in str(job.error_message)
    async with shop.sessions() as session:
        assert await list_evaluations(session, vector.id) == []


async def test_what_a_vector_was_trained_on_is_known_in_a_data_set_of_an_older_version(
    shop: Shop,
) -> None:
    """Its digests of pixels are not taken, as those of another version may say something else."""
    items = tiny_examples(8)
    learnt = await shop.dataset("learnt", items)
    given = await shop.dataset("given", items, pixels_version=PIXELS_VERSION)
    job = await evaluate(shop, given, await shop.vector(0, dataset=learnt))
    assert (job.state, job.error_code) == ("failed", "invalid-dataset")


async def test_a_vector_of_another_backbone_is_not_measured(shop: Shop) -> None:
    given = await shop.dataset("given", tiny_examples(8))
    job = await evaluate(shop, given, await shop.vector(0), fingerprint="f" * 64)
    assert (job.state, job.error_code) == ("failed", "incompatible-backbone")


async def test_a_deleted_vector_is_not_measured(shop: Shop) -> None:
    given = await shop.dataset("given", tiny_examples(8))
    vector = await shop.vector(0)
    async with shop.sessions() as session, session.begin():
        await delete_vector(session, vector.id)
    job = await evaluate(shop, given, vector)
    assert (job.state, job.error_code) == ("failed", "not-found")
