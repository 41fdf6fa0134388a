"""The vector file: four float32 tensors and text metadata in a strict subset of safetensors.

Stricter than the safetensors library, which accepts duplicate names (the last wins), NaN and a
million empty tensors.

Source: the format description in https://github.com/huggingface/safetensors.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, NoReturn

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from app.core.errors import InvalidVectorFileError
from app.core.vectors.tensors import VectorTensors, row_norms

FORMAT: Final = "m2iv"
FORMAT_VERSION: Final = "1"
# The kind that the engine carries; `normed-shift`, `gated-heads`, `virtual-keys` ... are others.
SHIFT: Final = "shift"
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_HEADER_BYTES: Final = 1024 * 1024
MAX_VECTOR_NORM: Final = 1e5
MAX_WEIGHT: Final = 1e4
MAX_SHIFT_NORM: Final = 1e6
REQUIRED_METADATA: Final = ("format", "format_version", "method", "backbone", "created_by")

_LENGTH_BYTES: Final = 8
_ALIGNMENT: Final = 8
_METADATA_KEY: Final = "__metadata__"
_FORBIDDEN_CHARACTERS: Final = frozenset("\0") | {chr(code) for code in range(0xD800, 0xE000)}
_NAMES: Final = tuple(sorted(field.name for field in fields(VectorTensors)))


def _refuse(reason: str) -> NoReturn:
    raise InvalidVectorFileError(f"Not a vector file: {reason}")


def _check_shapes(
    shapes: Mapping[str, tuple[int, ...]], *, num_layers: int | None, hidden_size: int | None
) -> None:
    layers, *rest = shapes["attention_vectors"] or (0,)
    if len(rest) != 1 or layers < 1 or rest[0] < 1:
        _refuse("attention_vectors needs the shape [layers, hidden]")
    hidden = rest[0]
    for name in _NAMES:
        wanted = (layers, hidden) if name.endswith("_vectors") else (layers,)
        if shapes[name] != wanted:
            _refuse(f"{name} needs the shape {list(wanted)}, found {list(shapes[name])}")
    if num_layers not in (None, layers):
        _refuse(f"wanted {num_layers} layers, found {layers}")
    if hidden_size not in (None, hidden):
        _refuse(f"wanted width {hidden_size}, found {hidden}")


def _check_values(tensors: VectorTensors) -> None:
    for name in _NAMES:
        if not np.isfinite(getattr(tensors, name)).all():
            _refuse(f"{name} has values that are not finite")
    for vectors in (tensors.attention_vectors, tensors.mlp_vectors):
        if row_norms(vectors).max() > MAX_VECTOR_NORM:
            _refuse(f"a vector is longer than {MAX_VECTOR_NORM:g}")
    for weights in (tensors.attention_weights, tensors.mlp_weights):
        if np.abs(weights).max() > MAX_WEIGHT:
            _refuse(f"a weight is larger than {MAX_WEIGHT:g}")
    if max(max(norms) for norms in tensors.norms().values()) > MAX_SHIFT_NORM:
        _refuse(f"a shift is longer than {MAX_SHIFT_NORM:g}")


def _check_kind(metadata: object) -> None:
    kind = metadata.get("kind", SHIFT) if isinstance(metadata, Mapping) else SHIFT
    if kind != SHIFT:
        raise InvalidVectorFileError(
            f"These vectors cannot be stored or served: wanted the kind {SHIFT}, found {kind}",
            details={"wanted": SHIFT, "found": str(kind)},
        )


def _check_metadata(metadata: Mapping[str, object]) -> dict[str, str]:
    checked: dict[str, str] = {}
    for key, value in metadata.items():
        if not isinstance(value, str):
            _refuse("metadata is text only")
        if not _FORBIDDEN_CHARACTERS.isdisjoint(key + value):
            _refuse("metadata has a NUL or a lone surrogate")
        checked[key] = value
    if missing := [key for key in REQUIRED_METADATA if not checked.get(key)]:
        _refuse(f"metadata lacks {', '.join(missing)}")
    if (checked["format"], checked["format_version"]) != (FORMAT, FORMAT_VERSION):
        _refuse(f"wanted format {FORMAT} version {FORMAT_VERSION}")
    return checked


def encode_vector_file(tensors: VectorTensors, *, metadata: Mapping[str, str]) -> bytes:
    """The file's bytes; equal input gives equal bytes.

    Args:
        tensors: Finite float32 arrays of matching shapes.
        metadata: Must hold `method` and `backbone` (the fingerprint). `format` and
            `format_version` are set here, `created_by` and `kind` when they are missing.

    Raises:
        InvalidVectorFileError: `decode_vector_file` would refuse the result.
    """
    arrays = {name: np.asarray(getattr(tensors, name)) for name in _NAMES}
    for name, array in arrays.items():
        if array.dtype != np.float32:
            _refuse(f"{name} is {array.dtype}, wanted float32")
    shapes = {name: array.shape for name, array in arrays.items()}
    _check_shapes(shapes, num_layers=None, hidden_size=None)
    _check_values(tensors)
    complete = {
        "created_by": "vlibrary",
        "kind": SHIFT,
        **metadata,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
    }
    _check_kind(complete)
    header: dict[str, object] = {_METADATA_KEY: _check_metadata(complete)}
    body = bytearray()
    for name, array in arrays.items():
        data = array.astype("<f4", copy=False).tobytes(order="C")
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES or len(text) + len(body) + _LENGTH_BYTES > MAX_FILE_BYTES:
        _refuse("it would exceed the size limits")
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + bytes(body)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        _refuse("a name occurs twice")
    return mapping


def _refuse_constant(_name: str) -> NoReturn:
    _refuse("the header has a number that is not finite")


def _read_header(data: bytes) -> tuple[dict[str, Any], int]:
    if len(data) > MAX_FILE_BYTES:
        _refuse(f"it is larger than {MAX_FILE_BYTES} bytes")
    if len(data) < _LENGTH_BYTES:
        _refuse("it is truncated")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        _refuse(f"the header is larger than {MAX_HEADER_BYTES} bytes")
    start = _LENGTH_BYTES + length
    if len(data) < start:
        _refuse("it is truncated")
    try:
        header = json.loads(
            data[_LENGTH_BYTES:start].decode(),
            object_pairs_hook=_unique_pairs,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        _refuse("the header is no JSON")
    if not isinstance(header, dict):
        _refuse("the header is no JSON object")
    return header, start


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_entry(name: str, entry: object) -> tuple[tuple[int, ...], tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse(f"{name} needs dtype, shape and data_offsets")
    if entry["dtype"] != "F32":
        _refuse(f"{name} is not F32")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(_is_count(number) for number in numbers):
            _refuse(f"{name} has a shape or offset that is no list of counts")
    if len(offsets) != 2 or len(shape) > 2:  # noqa: PLR2004 - a pair, and at most a matrix
        _refuse(f"{name} has a shape or offset of the wrong length")
    if offsets[1] - offsets[0] != math.prod(shape) * np.dtype(np.float32).itemsize:
        _refuse(f"{name} has a shape that does not fill its bytes")
    return tuple(shape), (offsets[0], offsets[1])


def _check_coverage(offsets: list[tuple[int, int]], *, num_bytes: int) -> None:
    position = 0
    for start, end in sorted(offsets):
        if start != position:
            _refuse("the tensors overlap or leave holes")
        position = end
    if position != num_bytes:
        _refuse(f"the header describes {position} bytes, found {num_bytes}")


def decode_vector_file(
    data: bytes, *, num_layers: int | None = None, hidden_size: int | None = None
) -> tuple[VectorTensors, dict[str, str]]:
    """The tensors and the metadata of a file that passes every check.

    The header is judged before any tensor is touched, so a hostile file costs no more than reading
    one mebibyte of JSON.

    Returns:
        Writable float32 arrays of their own memory, and the metadata.

    Raises:
        InvalidVectorFileError: Anything is missing, superfluous, out of bounds or not finite, or
            the vectors are of a kind that is no plain addition.
    """
    header, start = _read_header(data)
    metadata = header.pop(_METADATA_KEY, None)
    _check_kind(metadata)
    if set(header) != set(_NAMES):
        _refuse(f"wanted exactly the tensors {', '.join(_NAMES)}")
    if not isinstance(metadata, dict):
        _refuse("it has no metadata")
    checked = _check_metadata(metadata)
    entries = {name: _read_entry(name, header[name]) for name in _NAMES}
    shapes = {name: shape for name, (shape, _) in entries.items()}
    _check_shapes(shapes, num_layers=num_layers, hidden_size=hidden_size)
    _check_coverage([offsets for _, offsets in entries.values()], num_bytes=len(data) - start)
    try:
        arrays = safetensors.numpy.load(data)
    except SafetensorError:
        _refuse("safetensors cannot read it")
    tensors = VectorTensors(**{name: np.array(arrays[name], dtype=np.float32) for name in _NAMES})
    _check_values(tensors)
    return tensors, checked
