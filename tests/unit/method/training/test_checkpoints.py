import pytest
import torch

from app.core.errors import CorruptDataError, InvalidInputError
from app.method.training.checkpoints import Checkpoint, decode_checkpoint, encode_checkpoint


def checkpoint() -> Checkpoint:
    tensors = {"a": torch.randn(3, 2), "b.c": torch.arange(4), "d": torch.tensor([True, False])}
    return Checkpoint(identity="me", step=7, tensors=tensors, notes={"seconds": 1.5, "best": None})


def test_a_checkpoint_comes_back_exactly() -> None:
    wanted = checkpoint()
    found = decode_checkpoint(encode_checkpoint(wanted), "me")
    assert (found.step, found.notes) == (7, {"seconds": 1.5, "best": None})
    assert found.tensors.keys() == wanted.tensors.keys()
    for name, tensor in wanted.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_another_runs_checkpoint_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="another training: wanted you, found me"):
        decode_checkpoint(encode_checkpoint(checkpoint()), "you")


@pytest.mark.parametrize("data", [b"", b"nonsense", bytes(100)])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptDataError):
        decode_checkpoint(data, "me")


def test_a_truncated_checkpoint_is_refused() -> None:
    data = encode_checkpoint(checkpoint())
    with pytest.raises(CorruptDataError):
        decode_checkpoint(data[:-3], "me")
