"""A training run's state as bytes, so that it can go on after its process is gone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from app.core.errors import CorruptDataError, InvalidInputError

_RECORD: Final = "record"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    There is no state of a random generator in it: every draw is made from the seed, its purpose and
    its number, so the step says where the draws stand.

    Attributes:
        identity: Digest of backbone, items and settings; a checkpoint of another run is refused.
        tensors: Vectors, optimiser moments, losses and teacher predictions by name.
    """

    identity: str
    step: int
    tensors: dict[str, Tensor]
    notes: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, by what follows."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as safetensors bytes."""
    record = {
        "identity": checkpoint.identity,
        "step": checkpoint.step,
        "notes": dict(checkpoint.notes),
    }
    text = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    return safetensors.torch.save({**tensors, _RECORD: torch.from_numpy(text.copy())})


def decode_checkpoint(data: bytes, identity: str) -> Checkpoint:
    """The checkpoint in these bytes.

    Raises:
        CorruptDataError: The bytes are no checkpoint.
        InvalidInputError: It belongs to another run.
    """
    try:
        tensors = safetensors.torch.load(data)
        record = json.loads(tensors.pop(_RECORD).numpy().tobytes())
        checkpoint = Checkpoint(
            identity=record["identity"],
            step=record["step"],
            tensors=tensors,
            notes=record["notes"],
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CorruptDataError("The checkpoint cannot be read") from error
    if checkpoint.identity != identity:
        raise InvalidInputError(
            f"The checkpoint belongs to another training: wanted {identity[:12]}, "
            f"found {str(checkpoint.identity)[:12]}"
        )
    return checkpoint
