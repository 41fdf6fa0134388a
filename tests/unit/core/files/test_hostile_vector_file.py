import json
import time
from dataclasses import replace

import numpy as np
import pytest

from app.core.errors import InvalidVectorFileError
from app.core.identifiers import sha256_hex
from app.core.vectors.file import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    decode_vector_file,
    encode_vector_file,
)
from tests.fakes.vectors import (
    HIDDEN,
    LAYERS,
    METADATA,
    forge_file,
    make_tensors,
    make_vector_file,
    refused,
    split_file,
)


def test_every_truncation_is_refused() -> None:
    data = make_vector_file()
    for length in range(len(data)):
        refused(data[:length])


def test_bytes_behind_the_end_are_refused() -> None:
    refused(make_vector_file() + b"\0")


def test_every_flipped_bit_is_refused_or_changes_the_digest() -> None:
    data = make_vector_file()
    digest = sha256_hex(data)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data) * 8, 1000):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << (position % 8)
        assert sha256_hex(flipped) != digest
        try:
            decode_vector_file(bytes(flipped))
        except InvalidVectorFileError:
            continue


def test_a_duplicate_name_is_refused() -> None:
    header, body = split_file(make_vector_file())
    text = json.dumps(header)
    entry = json.dumps({"mlp_weights": header["mlp_weights"]})[1:-1]
    twice = f"{text[:-1]}, {entry}}}"
    assert "twice" in refused(forge_file(twice, body))


def test_a_duplicate_key_deep_inside_is_refused() -> None:
    header, body = split_file(make_vector_file())
    text = json.dumps(header).replace('"dtype": "F32"', '"dtype": "F64", "dtype": "F32"', 1)
    assert "twice" in refused(forge_file(text, body))


@pytest.mark.parametrize("name", ["../x", "x\0", "attention_vectors ", ""])
def test_a_foreign_name_is_refused(name: str) -> None:
    header, body = split_file(make_vector_file())
    header[name] = header.pop("mlp_weights")
    refused(forge_file(header, body))
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    original, _ = split_file(make_vector_file())
    refused(forge_file({**original, name: empty}, body))


def test_a_million_empty_tensors_are_refused_at_once() -> None:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    names = ",".join(f'"t{number}":{entry}' for number in range(1_000_000))
    data = forge_file("{" + names + "}", b"")
    start = time.process_time()
    assert "header" in refused(data)
    assert time.process_time() - start < 1


def test_a_header_full_of_empty_tensors_is_refused_quickly() -> None:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    names = ",".join(f'"t{number}":{entry}' for number in range(15_000))
    text = "{" + names + "}"
    assert len(text) < MAX_HEADER_BYTES
    start = time.process_time()
    assert "exactly" in refused(forge_file(text, b""))
    assert time.process_time() - start < 1


def test_a_header_length_that_lies_is_refused() -> None:
    data = make_vector_file()
    for length in (0, 1, 2**40, 2**64 - 1, MAX_HEADER_BYTES + 1, MAX_HEADER_BYTES):
        refused(length.to_bytes(8, "little") + data[8:])


def test_a_file_over_the_limit_is_refused_unread() -> None:
    assert "larger" in refused(bytes(MAX_FILE_BYTES + 1))


def test_a_metadata_that_would_not_fit_is_not_written() -> None:
    with pytest.raises(InvalidVectorFileError, match="limits"):
        encode_vector_file(make_tensors(), metadata={**METADATA, "note": "x" * MAX_HEADER_BYTES})


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "null",
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"__metadata__":{},"x":NaN}',
        '{"x":' + "9" * 5000 + "}",
        b"\xff\xfe{}",
        "{}",
    ],
)
def test_a_header_that_is_no_object_of_ours_is_refused(header: str | bytes) -> None:
    refused(forge_file(header, b""))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [LAYERS, HIDDEN, 1]),
        ("shape", [LAYERS * HIDDEN]),
        ("shape", [HIDDEN, LAYERS]),
        ("shape", [-LAYERS, -HIDDEN]),
        ("shape", [float(LAYERS), HIDDEN]),
        ("shape", [True, LAYERS * HIDDEN]),
        ("shape", "38"),
        ("shape", []),
        ("shape", [0, 2**62]),
        ("shape", [2**62, 4]),
        ("data_offsets", [0]),
        ("data_offsets", [0, 96, 97]),
        ("data_offsets", [96, 0]),
        ("data_offsets", [4, 100]),
        ("data_offsets", [0, 2**63]),
        ("data_offsets", None),
        ("dtype", "F64"),
        ("dtype", ["F32"]),
        ("extra", 1),
    ],
)
def test_a_wrong_entry_is_refused(field: str, value: object) -> None:
    header, body = split_file(make_vector_file())
    entry = header["attention_vectors"]
    assert isinstance(entry, dict)
    header["attention_vectors"] = {**entry, field: value}
    refused(forge_file(header, body))


@pytest.mark.parametrize("entry", [None, [], "F32", {"dtype": "F32"}])
def test_an_entry_of_another_kind_is_refused(entry: object) -> None:
    header, body = split_file(make_vector_file())
    refused(forge_file({**header, "mlp_vectors": entry}, body))


def test_tensors_that_share_bytes_are_refused() -> None:
    header, body = split_file(make_vector_file())
    assert "overlap" in refused(
        forge_file({**header, "mlp_vectors": header["attention_vectors"]}, body)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"format_version": "2"},
        {"method": ""},
        {"backbone": 7},
        {"note": "a\0b"},
        {"note": "\ud800"},
        {"note": {"nested": "x"}},
    ],
)
def test_wrong_metadata_is_refused(change: dict[str, object]) -> None:
    header, body = split_file(make_vector_file())
    metadata = header["__metadata__"]
    assert isinstance(metadata, dict)
    refused(forge_file({**header, "__metadata__": {**metadata, **change}}, body))


@pytest.mark.parametrize("metadata", [None, [], "text"])
def test_a_file_without_metadata_is_refused(metadata: object) -> None:
    header, body = split_file(make_vector_file())
    refused(forge_file({**header, "__metadata__": metadata}, body))


@pytest.mark.parametrize("missing", ["method", "backbone"])
def test_nothing_is_written_without_its_origin(missing: str) -> None:
    metadata = {key: value for key, value in METADATA.items() if key != missing}
    with pytest.raises(InvalidVectorFileError, match=missing):
        encode_vector_file(make_tensors(), metadata=metadata)


@pytest.mark.parametrize("shape", [(0, HIDDEN), (LAYERS, 0), (LAYERS,), ()])
def test_tensors_without_extent_are_not_written(shape: tuple[int, ...]) -> None:
    tensors = replace(make_tensors(), attention_vectors=np.zeros(shape, np.float32))
    with pytest.raises(InvalidVectorFileError):
        encode_vector_file(tensors, metadata=METADATA)
