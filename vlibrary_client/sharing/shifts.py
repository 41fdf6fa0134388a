"""What a vector file adds to a backbone, read with `safetensors`, which is no part of the SDK."""

from typing import TYPE_CHECKING

from vlibrary_client.errors import ConfigurationError, InvalidVectorFileError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TENSORS = {"attention_vectors", "attention_weights", "mlp_vectors", "mlp_weights"}


def read_shift(content: bytes) -> "npt.NDArray[np.float32]":
    """The shifts of a vector file at strength 1, `[layers, 2, hidden]`: attention, then MLP.

    Raises:
        ConfigurationError: `safetensors` is missing.
        InvalidVectorFileError: It is no vector file.
    """
    try:
        import numpy as np  # noqa: PLC0415 - comes with an extra
        import safetensors.numpy  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError("to read a vector file, pip install safetensors numpy") from None
    try:
        tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError:
        raise InvalidVectorFileError("no vector file: safetensors cannot read it") from None
    if set(tensors) != _TENSORS:
        raise InvalidVectorFileError(f"no vector file: wanted {', '.join(sorted(_TENSORS))}")
    try:
        branches = [
            tensors[f"{branch}_weights"][:, None] * tensors[f"{branch}_vectors"]
            for branch in ("attention", "mlp")
        ]
        shift: npt.NDArray[np.float32] = np.stack(branches, axis=1).astype(np.float32)
    except (IndexError, ValueError):
        raise InvalidVectorFileError("no vector file: its tensors do not fit each other") from None
    if shift.ndim != 3 or not np.isfinite(shift).all():  # noqa: PLR2004 - layers, branches, width
        raise InvalidVectorFileError("no vector file: it has values that are not finite")
    return shift
