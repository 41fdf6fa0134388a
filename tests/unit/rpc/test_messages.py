import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.core.errors import InvalidInputError, UnavailableError, VLibraryError
from app.rpc.decoding import error_of
from app.rpc.messages import EmbedRequest, ErrorBody, GenerateRequest, VectorUse, pack, unpack

VECTOR = {"sha256": "a" * 64, "name": "n", "version": 1}


@given(images=st.lists(st.binary(min_size=1, max_size=200), max_size=4))
def test_images_travel_as_they_are(images: list[bytes]) -> None:
    use = VectorUse.model_validate(VECTOR)
    request = GenerateRequest(request_id="r", prompt="p", images=tuple(images), vectors=(use,))
    pieces = pack(request)
    assert unpack(b"".join(pieces), GenerateRequest) == request
    # Not copied: several requests may have the same ones.
    assert [piece for piece in pieces if any(piece is image for image in images)] == images


def test_an_item_without_an_image_travels_beside_one_with_an_image() -> None:
    request = EmbedRequest(images=(None, b"file", None), questions=("a", None, "b"))
    assert unpack(b"".join(pack(request)), EmbedRequest) == request


@given(body=st.binary(max_size=200))
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError, match="this worker's version"):
        unpack(body, GenerateRequest)


def test_a_refusal_tells_places_and_no_values() -> None:
    with pytest.raises(InvalidInputError) as caught:
        unpack(
            msgpack.packb({"request_id": 5, "prompt": "secret", "images": ["x"]}), GenerateRequest
        )
    assert caught.value.details == {"places": ["request_id", "images.0"]}
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 10**9},
        {"max_tokens": 0},
        {"temperature": float("nan")},
        {"top_p": -0.1},
        {"seed": -1},
        {"stop": ["x"] * 17},
        {"stop": [""]},
        {"images": ["not base64!"]},
        {"images": [""]},
        {"vectors": [{**VECTOR, "strength": 1e30}]},
        {"vectors": [{**VECTOR, "strength": float("inf")}]},
        {"vectors": [{**VECTOR, "sha256": "A" * 64}]},
        {"deadline_seconds": float("inf")},
        {"unknown": 1},
        {"demonstrations": {"storage_key": "k", "shots": 65}},
    ],
)
def test_what_is_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GenerateRequest.model_validate({"request_id": "r", "prompt": "p", **change})


@pytest.mark.parametrize(
    ("images", "questions"), [((), ()), ((b"x",), ()), ((None,), (None,)), ((b"x", None), ("q",))]
)
def test_items_to_embed_must_be_whole(
    images: tuple[bytes | None, ...], questions: tuple[str | None, ...]
) -> None:
    with pytest.raises(ValidationError):
        EmbedRequest(images=images, questions=questions)


def test_an_error_body_needs_only_a_code_and_a_message() -> None:
    body = ErrorBody.model_validate_json('{"code": "busy", "message": "later"}')
    assert (body.details, body.retry_after_seconds) == ({}, None)


def every_class() -> list[type[VLibraryError]]:
    found = [VLibraryError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def received(code: str, **others: object) -> VLibraryError:
    sent = ErrorBody.model_validate({"code": code, "message": "wanted 1, found 2", **others})
    return error_of(ErrorBody.model_validate_json(sent.model_dump_json()))


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.code)
def test_an_error_survives_the_wire(kind: type[VLibraryError]) -> None:
    error = received(kind.code, details={"wanted": 1})
    assert type(error) is kind
    assert str(error) == error.message == "wanted 1, found 2"
    assert error.details == {"wanted": 1}


def test_the_time_to_wait_survives_the_wire() -> None:
    error = received("busy", retry_after_seconds=3)
    assert isinstance(error, UnavailableError)
    assert error.retry_after_seconds == 3.0


def test_an_unknown_code_is_kept() -> None:
    error = received("from-the-future")
    assert type(error) is VLibraryError
    assert error.details == {"code": "from-the-future"}
