import threading

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import InvalidVectorFileError, NotFoundError
from app.core.vectors.card import MAX_SHOTS, EvaluationCard, KeyCard, VectorCard, read_card
from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.library.catalogue.combination import combine_vectors
from app.library.catalogue.transfer import current_file, import_vector, load_file
from app.library.evaluations import add_evaluation, list_evaluations
from app.library.records import VectorRecord
from app.library.search import overlaps
from app.library.search.overlaps import find_overlaps
from app.library.search.retrieval import Retriever
from tests.fakes.vectors import FINGERPRINT, make_description, make_vector_file

pytestmark = pytest.mark.anyio
Sessions = async_sessionmaker[AsyncSession]
SPACE = f"backbone-{FINGERPRINT[:16]}-v2"
WIDTH = 4


def rows_of(image: int, text: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.zeros((12, 2 * WIDTH))
    rows[:, :WIDTH] = rng.normal(size=(12, WIDTH)) * 0.1
    rows[:, image] += 1
    rows[:, :WIDTH] /= np.linalg.norm(rows[:, :WIDTH], axis=1, keepdims=True)
    rows[:, WIDTH + text] = 1
    halves: np.ndarray = (rows * 0.5**0.5).astype(np.float32)
    return halves


def card(*, image: int = 0, text: int = 0, space: str = SPACE, seed: int = 0) -> VectorCard:
    key = KeyCard.of(
        rows_of(image, text, seed=seed),
        space=space,
        threshold=0.8,
        text_threshold=0.9,
        image_width=WIDTH,
    )
    measured = EvaluationCard(
        dataset="parts",
        split="held-out",
        scorer="exact-answer",
        items=40,
        accuracy=0.9,
        low=0.8,
        high=0.95,
        zero_shot=0.5,
    )
    return VectorCard(
        status="ready",
        shots=8,
        seed=5,
        hyper_parameters={"epochs": 2},
        library_versions={"torch": "2"},
        key=key,
        evaluations=(measured,),
    )


def file_with(told: VectorCard | None) -> bytes:
    tensors, metadata = decode_vector_file(make_vector_file(0, backbone=make_description()))
    return encode_vector_file(
        tensors, metadata={**metadata, **(told.to_metadata() if told else {})}
    )


async def take(session: AsyncSession, name: str, blob: bytes) -> VectorRecord:
    _, metadata = decode_vector_file(blob)
    record = await import_vector(
        session,
        name=name,
        blob=blob,
        metadata=metadata,
        card=read_card(metadata),
        backbone=make_description(),
    )
    await session.commit()
    return record


async def names(
    sessions: Sessions, query: np.ndarray, *, prefer: str | None = None
) -> tuple[list[str], str | None]:
    retriever = Retriever(sessions)
    await retriever.start()
    found = await retriever.search(
        query, space=SPACE, backbone_fingerprint=FINGERPRINT, prefer=prefer
    )
    await retriever.stop()
    return [match.vector.name for match in found.matches], found.reason


async def test_a_file_brings_its_key_its_measurements_and_where_it_comes_from(
    session: AsyncSession, sessions: Sessions
) -> None:
    record = await take(session, "parts", file_with(card()))
    assert (record.status, record.shots, record.seed) == ("ready", 8, 5)
    assert record.hyper_parameters == {"epochs": 2}
    assert record.library_versions["torch"] == "2"
    (measured,) = await list_evaluations(session, record.id)
    assert (measured.items, measured.accuracy, measured.zero_shot) == (40, 0.9, 0.5)
    assert await names(sessions, rows_of(0, 0, seed=7)[0]) == (["parts"], None)
    assert (await names(sessions, rows_of(0, 1, seed=7)[0]))[1] == "below-threshold"


async def test_a_split_with_the_longest_name_goes_along_in_the_file(session: AsyncSession) -> None:
    record = await take(session, "parts", file_with(card()))
    (first,) = card().evaluations
    split = "s" * 500
    await add_evaluation(
        session, vector_id=record.id, measured=first.model_copy(update={"split": split})
    )
    blob, measured = await load_file(session, record)
    found = read_card(decode_vector_file(current_file(blob, record=record, measured=measured))[1])
    assert found is not None
    assert [one.split for one in found.evaluations] == ["held-out", split]


async def test_a_file_without_a_card_is_kept_and_never_found(
    session: AsyncSession, sessions: Sessions
) -> None:
    record = await take(session, "old", file_with(None))
    assert record.hyper_parameters == {}
    assert await names(sessions, rows_of(0, 0)[0]) == ([], "no-vectors")


async def test_the_most_that_a_file_may_say_is_stored_and_combined(session: AsyncSession) -> None:
    most = VectorCard(shots=MAX_SHOTS, seed=2**53)
    parts = [(await take(session, name, file_with(most)), 1.0) for name in ("a", "b")]
    assert [(part.shots, part.seed) for part, _ in parts] == [(MAX_SHOTS, 2**53)] * 2
    combined, _ = await combine_vectors(session, name="sum", parts=parts)
    assert combined.shots == MAX_SHOTS


async def test_keys_for_another_backbone_are_refused(session: AsyncSession) -> None:
    with pytest.raises(InvalidVectorFileError, match="wanted keys of a space"):
        await take(session, "parts", file_with(card(space="backbone-0000-v2")))


async def test_a_task_with_the_same_pictures_and_questions_is_an_overlap(
    session: AsyncSession, sessions: Sessions
) -> None:
    cards = {"english": card(), "spanish": card(seed=1), "shape": card(text=1)}
    first, second, _ = [await take(session, name, file_with(one)) for name, one in cards.items()]
    for name, others in (("english", ["spanish"]), ("spanish", ["english"]), ("shape", [])):
        key = cards[name].key
        assert key is not None
        found = await find_overlaps(session, key, name=name, backbone_fingerprint=FINGERPRINT)
        assert found == others
    assert (await names(sessions, rows_of(0, 0, seed=7)[0]))[1] == "ambiguous"
    retriever = Retriever(sessions)
    assert await retriever.overlaps(first.id) == ["spanish"]
    assert await retriever.overlaps(second.id) == ["english"]
    await retriever.stop()


async def test_tasks_are_compared_beside_the_event_loop(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker streams answers meanwhile, and there may be thousands."""
    threads = []

    def note(*_keys: object, **_options: object) -> bool:
        threads.append(threading.current_thread())
        return True

    monkeypatch.setattr(overlaps, "cannot_tell_apart", note)
    key = card().key
    assert key is not None
    await take(session, "spanish", file_with(card(seed=1)))
    found = await find_overlaps(session, key, name="english", backbone_fingerprint=FINGERPRINT)
    assert found == ["spanish"]
    assert threading.main_thread() not in threads


async def test_a_request_chooses_among_tasks_that_look_the_same(
    session: AsyncSession, sessions: Sessions
) -> None:
    await take(session, "english", file_with(card()))
    await take(session, "spanish", file_with(card(seed=1)))
    query = rows_of(0, 0, seed=7)[0]
    assert await names(sessions, query, prefer="spanish") == (["spanish", "english"], None)
    assert await names(sessions, query, prefer="english") == (["english", "spanish"], None)
    with pytest.raises(NotFoundError, match="french"):
        await names(sessions, query, prefer="french")
