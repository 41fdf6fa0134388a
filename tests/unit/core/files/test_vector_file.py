from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidVectorFileError
from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.core.vectors.tensors import VectorTensors
from tests.fakes.vectors import (
    FINGERPRINT,
    HIDDEN,
    LAYERS,
    METADATA,
    forge_file,
    make_tensors,
    make_vector_file,
    refused,
    split_file,
)

NAMES = ("attention_vectors", "attention_weights", "mlp_vectors", "mlp_weights")


def changed(name: str, value: float) -> VectorTensors:
    array = getattr(make_tensors(), name).copy()
    array[(0,) * array.ndim] = value
    return replace(make_tensors(), **{name: array})


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 40)),
    note=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
)
@settings(max_examples=30)
def test_what_is_written_reads_back(seed: int, sizes: tuple[int, int], note: str) -> None:
    layers, hidden = sizes
    tensors = make_tensors(seed, num_layers=layers, hidden_size=hidden)
    data = encode_vector_file(tensors, metadata={**METADATA, "note": note})
    found, metadata = decode_vector_file(data, num_layers=layers, hidden_size=hidden)
    for name in NAMES:
        assert np.array_equal(getattr(found, name), getattr(tensors, name))
        assert getattr(found, name).flags.writeable
    assert metadata["note"] == note
    assert (found.num_layers, found.hidden_size) == (layers, hidden)


def test_equal_input_gives_equal_bytes() -> None:
    turned = dict(reversed(METADATA.items()))
    first = encode_vector_file(make_tensors(), metadata=METADATA)
    assert first == encode_vector_file(make_tensors(), metadata=turned)


def test_safetensors_reads_the_file() -> None:
    data = make_vector_file()
    assert sorted(safetensors.numpy.load(data)) == sorted(NAMES)


def test_metadata_says_what_it_is() -> None:
    _, metadata = decode_vector_file(make_vector_file())
    assert metadata["format"] == "m2iv"
    assert metadata["format_version"] == "1"
    assert metadata["created_by"] == "vlibrary"
    assert metadata["backbone"] == FINGERPRINT


def test_the_kind_is_recorded_and_a_file_without_one_is_a_shift() -> None:
    data = make_vector_file()
    assert decode_vector_file(data)[1]["kind"] == "shift"
    header, body = split_file(data)
    metadata = header["__metadata__"]
    assert isinstance(metadata, dict)
    older = {name: value for name, value in metadata.items() if name != "kind"}
    decode_vector_file(forge_file({**header, "__metadata__": older}, body))


@pytest.mark.parametrize("kind", ["normed-shift", "gated-heads", "virtual-keys", ""])
def test_a_kind_that_the_engine_cannot_carry_is_refused_by_its_name(kind: str) -> None:
    # LIVE's tensors would fit; added plainly they would be other vectors.
    told = {**METADATA, "kind": kind}
    with pytest.raises(InvalidVectorFileError, match=f"wanted the kind shift, found {kind}"):
        encode_vector_file(make_tensors(), metadata=told)
    keys = {"keys": np.zeros((2, 2, 3, 4), np.float32)}
    text = {"format": "m2iv", "format_version": "1", "created_by": "x", **told}
    data = safetensors.numpy.save(keys, metadata=text)
    assert refused(data) == (
        f"These vectors cannot be stored or served: wanted the kind shift, found {kind}"
    )


def test_norms_are_those_of_the_shift() -> None:
    tensors = make_tensors()
    shift = tensors.attention_weights[:, None] * tensors.attention_vectors
    assert np.allclose(tensors.norms()["attention"], np.linalg.norm(shift, axis=1), rtol=1e-6)


def test_other_sizes_than_the_backbones_are_refused() -> None:
    assert f"found {LAYERS}" in refused(make_vector_file(), num_layers=LAYERS + 1)
    assert f"found {HIDDEN}" in refused(make_vector_file(), hidden_size=HIDDEN + 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", NAMES)
def test_numbers_without_bounds_are_refused_on_both_sides(name: str, value: float) -> None:
    with pytest.raises(InvalidVectorFileError):
        encode_vector_file(changed(name, value), metadata=METADATA)
    header, body = split_file(make_vector_file())
    entry = header[name]
    assert isinstance(entry, dict)
    start = entry["data_offsets"][0]
    poisoned = body[:start] + np.float32(value).tobytes() + body[start + 4 :]
    refused(forge_file(header, poisoned))


def test_a_shift_that_explodes_is_refused() -> None:
    tensors = make_tensors()
    large = replace(
        tensors,
        mlp_vectors=np.full((LAYERS, HIDDEN), 1e4, np.float32),
        mlp_weights=np.full(LAYERS, 5e3, np.float32),
    )
    with pytest.raises(InvalidVectorFileError, match="shift"):
        encode_vector_file(large, metadata=METADATA)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32])
def test_other_types_are_refused(kind: npt.DTypeLike) -> None:
    tensors = make_tensors()
    other = replace(tensors, mlp_weights=tensors.mlp_weights.astype(kind))
    with pytest.raises(InvalidVectorFileError, match="float32"):
        encode_vector_file(other, metadata=METADATA)
    arrays = {name: getattr(tensors, name).astype(kind) for name in NAMES}
    _, metadata = decode_vector_file(make_vector_file())
    assert "F32" in refused(safetensors.numpy.save(arrays, metadata=metadata))


def test_vectors_or_weights_that_are_all_zero_have_no_effect() -> None:
    tensors = make_tensors(1, num_layers=2, hidden_size=3)
    assert tensors.has_effect
    without = replace(tensors, attention_weights=np.zeros(2, np.float32))
    assert without.has_effect
    assert not replace(without, mlp_vectors=np.zeros((2, 3), np.float32)).has_effect
