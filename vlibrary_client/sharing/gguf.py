"""Vectors as control-vector files of llama.cpp, and what such a file loses. Knows no server.

Needs gguf and safetensors, the extra `gguf`.

A control vector is one direction a layer, added to the residual stream behind the layer, from the
second layer on. A vector of ours has two shifts a layer, behind attention and behind the MLP, from
the first layer on. So the file has their sum, which the MLP of the same layer does not see, and the
first layer's sum comes one layer late.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlibrary_client.errors import ConfigurationError, InvalidInputError
from vlibrary_client.sharing.folders import read_shift
from vlibrary_client.types import Vector

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ARCHITECTURE = "controlvector"
NOTE = (
    "Lossy: one direction a layer instead of two shifts, none behind the first layer. Made from an "
    "M2IV vector, which only vlibrary applies exactly."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufExport:
    """A control-vector file, and how much of the vector acts otherwise in it.

    Both shares are of the squared lengths of all shifts, from 0 to 1. What they do to answers only
    a measurement tells.

    Attributes:
        path: The file.
        late_share: The first layer's shifts, which act one layer late.
        unseen_share: The shifts behind attention, which the MLP of their layer does not see.
    """

    path: Path
    late_share: float
    unseen_share: float


def as_carried(shift: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    """The shifts that act on a backbone as the file does, `[layers, 2, hidden]`.

    Adding behind the MLP is adding behind the layer, so a file can be measured before it is used.

    It has at least two layers.
    """
    carried = shift.copy()
    carried[:, 1] += carried[:, 0]
    carried[:, 0] = 0
    carried[1, 1] += carried[0, 1]
    carried[0, 1] = 0
    return carried


def write_gguf(path: Path, *, vector: Vector, content: bytes) -> GgufExport:
    """Writes a vector as a control-vector file, in place of any that is there.

    The vector is as `client.vectors.get` returns it.

    Raises:
        ConfigurationError: `gguf` or `safetensors` is missing.
        InvalidVectorFileError: It is no vector file.
        InvalidInputError: It has a single layer, which such a file cannot carry.
    """
    gguf, numpy = _packages()
    shift = read_shift(content)
    if len(shift) < 2:  # noqa: PLR2004 - see above
        raise InvalidInputError("a control vector begins at the second layer: found only one")
    directions = as_carried(shift)[:, 1]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        writer.add_string(f"{ARCHITECTURE}.model_hint", vector.backbone.architecture)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(directions) - 1)
        writer.add_name(vector.ref)
        writer.add_description(f"{vector.description}\n\n{NOTE}".strip())
        for layer, direction in enumerate(directions[1:], start=1):
            writer.add_tensor(f"direction.{layer}", numpy.ascontiguousarray(direction))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    lengths = numpy.square(shift, dtype=numpy.float64).sum(axis=-1)
    total = float(lengths.sum()) or 1.0
    return GgufExport(
        path=path,
        late_share=float(lengths[0].sum()) / total,
        unseen_share=float(lengths[:, 0].sum()) / total,
    )


def _packages() -> tuple[Any, Any]:
    try:
        import gguf  # noqa: PLC0415 - an extra
        import numpy  # noqa: ICN001, PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "to write a control-vector file, pip install gguf safetensors"
        ) from None
    return gguf, numpy
