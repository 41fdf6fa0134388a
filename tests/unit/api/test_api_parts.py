import asyncio
from pathlib import Path

import pytest
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.api.http import uploads as uploading
from app.api.http.admission import Admission
from app.api.http.uploads import read_body, received_file, require_media_type
from app.api.steer.receipts import effect_of, verify_receipt
from app.api.steer.vector_selection import ChosenVector
from app.core.errors import (
    BusyError,
    DeadlineExceededError,
    IncompatibleBackboneError,
    InvalidInputError,
    SteeringError,
    WorkerUnavailableError,
)
from app.core.identifiers import digest_of
from app.rpc.backbones import backbone_for
from app.rpc.generation import AppliedVector, Receipt
from app.rpc.messages import HealthResponse
from tests.fakes.records import vector_record
from tests.fakes.servers.worker import FakeWorker, backbone


class TestAdmission:
    def test_places_are_given_back_whatever_happens(self) -> None:
        admission = Admission(max_requests=1, max_bytes=10)
        with pytest.raises(KeyError), admission.place(num_bytes=10):
            raise KeyError
        assert admission.in_flight == 0
        with admission.place(num_bytes=10):
            assert admission.in_flight == 1

    def test_the_last_place_is_not_given_twice(self) -> None:
        admission = Admission(max_requests=2, max_bytes=100)
        with admission.place(), admission.place(), pytest.raises(BusyError), admission.place():
            pass

    def test_bytes_are_bounded_but_one_request_always_fits(self) -> None:
        admission = Admission(max_requests=9, max_bytes=10)
        with admission.place(num_bytes=100), pytest.raises(BusyError), admission.place(num_bytes=1):
            pass


def request_with(*messages: Message, content_type: str = "") -> Request:
    """A request whose messages arrive one by one, and then nothing."""
    queue = list(messages)

    async def receive() -> Message:
        if queue:
            return queue.pop(0)
        await asyncio.sleep(60)
        raise AssertionError

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "headers": headers}, receive)


def piece(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


@pytest.mark.anyio
class TestUploading:
    async def test_a_body_becomes_a_file_that_goes_away(self, tmp_path: Path) -> None:
        pieces = [piece(b"x" * 700_000), piece(b"y" * 700_000), piece(b"z", more=False)]
        async with received_file(request_with(*pieces), folder=tmp_path / "new") as (path, digest):
            assert path.read_bytes() == b"x" * 700_000 + b"y" * 700_000 + b"z"
            assert digest == digest_of(path)
        assert not path.exists()

    async def test_the_file_goes_away_when_the_client_does(self, tmp_path: Path) -> None:
        request = request_with(piece(b"x"), {"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            async with received_file(request, folder=tmp_path):
                pass
        assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))

    async def test_an_empty_body_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError):
            await read_body(request_with(piece(b"", more=False)))
        with pytest.raises(InvalidInputError):
            async with received_file(request_with(piece(b"", more=False)), folder=tmp_path):
                pass

    async def test_a_slow_sender_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uploading, "LONGEST_SECONDS", -1.0)
        with pytest.raises(DeadlineExceededError):
            await read_body(request_with(piece(b"x"), piece(b"y")))

    @pytest.mark.parametrize("declared", ["", "text/plain", "application/json", "multipart/x"])
    async def test_what_a_form_can_send_is_refused(self, declared: str) -> None:
        with pytest.raises(HTTPException) as caught:
            require_media_type(request_with(content_type=declared), "application/octet-stream")
        assert caught.value.status_code == 415

    async def test_parameters_of_the_type_do_not_matter(self) -> None:
        request = request_with(content_type="Application/Octet-Stream; charset=x")
        require_media_type(request, "application/octet-stream")


def health(digit: str) -> HealthResponse:
    return HealthResponse(
        status="ready", backbone=backbone(digit), space="s", running=0, waiting=0, role="both"
    )


class TestBackbones:
    def test_without_vectors_the_only_backbone_is_meant(self) -> None:
        assert backbone_for([], [health("a"), health("a")]).backbone == backbone("a")
        with pytest.raises(InvalidInputError, match="Several backbones"):
            backbone_for([], [health("a"), health("b")])

    def test_vectors_choose_their_backbone(self) -> None:
        found = backbone_for(["b" * 64, "b" * 64], [health("a"), health("b")])
        assert found.backbone == backbone("b")

    @pytest.mark.parametrize(
        ("fingerprints", "words"),
        [
            (["c" * 64], r"Wanted {a} or {b}, found cccccccccccc"),
            (
                ["a" * 64, "b" * 64],
                r"Wanted one backbone for vectors and answer, found {a} and {b}",
            ),
        ],
    )
    def test_vectors_that_fit_no_worker_are_told_wanted_and_found(
        self, fingerprints: list[str], words: str
    ) -> None:
        names = {digit: f"{backbone(digit).name} ({digit * 12})" for digit in "ab"}
        with pytest.raises(IncompatibleBackboneError) as caught:
            backbone_for(fingerprints, [health("a"), health("b")])
        assert caught.value.message == words.format(**names)
        assert caught.value.details == {
            "wanted": ["a" * 64, "b" * 64],
            "found": sorted(fingerprints),
        }

    @pytest.mark.anyio
    async def test_workers_are_not_asked_at_every_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = FakeWorker()
        async with worker.client() as client:
            first = await client.pool.serving()
            worker.is_down = True
            assert await client.pool.serving() == first
            monkeypatch.setattr("app.rpc.pool.HEALTH_AGE_SECONDS", 0.0)
            with pytest.raises(WorkerUnavailableError):
                await client.pool.serving()


SHA = "1" * 64
OTHER = "2" * 64


def receipt(*vectors: tuple[str, float], **changes: int) -> Receipt:
    counts = {"sites_hit": 4, "sites_expected": 4, "num_forwards": 3, **changes}
    applied = tuple(AppliedVector(sha256=sha, strength=strength) for sha, strength in vectors)
    return Receipt(vectors=applied, **counts)


def asked(*vectors: tuple[str, float]) -> list[ChosenVector]:
    return [
        ChosenVector(record=vector_record(sha256=sha), strength=strength)
        for sha, strength in vectors
    ]


class TestReceipts:
    @pytest.mark.parametrize(
        "vectors", [((SHA, 1.0),), ((SHA, -0.3), (OTHER, 2.0)), ((OTHER, 2.0), (SHA, -0.3))]
    )
    def test_an_honest_receipt_passes(self, vectors: tuple[tuple[str, float], ...]) -> None:
        verify_receipt(receipt(*reversed(vectors)), vectors=asked(*vectors), backbone=backbone())

    def test_nothing_asked_and_nothing_done_passes(self) -> None:
        nothing = receipt(sites_hit=0, sites_expected=0)
        verify_receipt(nothing, vectors=[], backbone=backbone())

    @pytest.mark.parametrize(
        "shown",
        [
            receipt(),
            receipt((OTHER, 1.0)),
            receipt((SHA, 0.9)),
            receipt((SHA, 1.0), (OTHER, 1.0)),
            receipt((SHA, 1.0), (SHA, 1.0)),
            receipt((SHA, 1.0), sites_hit=3),
            receipt((SHA, 1.0), sites_hit=0, sites_expected=0),
            receipt((SHA, 1.0), sites_hit=2, sites_expected=2),
            receipt((SHA, 1.0), num_forwards=0),
        ],
    )
    def test_any_other_receipt_is_a_failure(self, shown: Receipt) -> None:
        with pytest.raises(SteeringError):
            verify_receipt(shown, vectors=asked((SHA, 1.0)), backbone=backbone())


@pytest.mark.parametrize(
    ("strength", "dose", "effect"),
    [(1.0, 0.5, "shift"), (0.0, 0.5, "none"), (1.0, 0.0, "none"), (-1.0, 1e-9, "none")],
)
def test_what_adds_up_to_nothing_has_no_effect(strength: float, dose: float, effect: str) -> None:
    receipt = Receipt(vectors=(), sites_hit=4, sites_expected=4, num_forwards=1, dose=dose)
    assert effect_of(strength, receipt) == effect
