"""Vectors as control-vector files of llama.cpp, and the loss that is told of them."""

import builtins
import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from app.cli.library.gguf import file_of, measure_loss, print_loss
from app.core.errors import IncompatibleBackboneError
from app.core.vectors.file import encode_vector_file
from app.method.backbone.loading import load_backbone
from app.method.steering.injection import inject
from app.method.steering.sites import find_decoder
from tests.fakes.models.families import tiny_inputs, tiny_model
from tests.fakes.vectors import make_tensors
from vlibrary_client.errors import ConfigurationError, InvalidInputError, InvalidVectorFileError
from vlibrary_client.sharing.folders import read_shift
from vlibrary_client.sharing.gguf import NOTE, as_carried, write_gguf
from vlibrary_client.types import Backbone, Vector

LAYERS, HIDDEN = 4, 8


def content(*, layers: int = LAYERS, hidden: int = HIDDEN) -> bytes:
    tensors = make_tensors(3, num_layers=layers, hidden_size=hidden)
    return encode_vector_file(tensors, metadata={"method": "m2iv", "backbone": "a" * 64})


def vector() -> Vector:
    return Vector(
        id=uuid.uuid4(),
        name="gears",
        version=2,
        status="ready",
        sha256="b" * 64,
        size_bytes=1,
        backbone=Backbone(
            fingerprint="a" * 64,
            name="tiny",
            architecture="TinyModel",
            num_layers=LAYERS,
            hidden_size=HIDDEN,
        ),
        method="m2iv",
        created=dt.datetime.now(dt.UTC),
        description="what a gear is",
    )


def test_a_file_has_what_llama_cpp_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "gears.gguf"
    made = write_gguf(path, vector=vector(), content=content())
    reader = gguf.GGUFReader(path)
    facts = {name: reader.fields[name].contents() for name in reader.fields}
    assert facts["general.architecture"] == "controlvector"
    assert facts["controlvector.layer_count"] == LAYERS - 1
    assert facts["controlvector.model_hint"] == "TinyModel"
    assert facts["general.description"] == f"what a gear is\n\n{NOTE}"
    shift = read_shift(content()).astype(np.float64)
    whole = shift.sum(axis=1)
    wanted = {"direction.1": whole[0] + whole[1], "direction.2": whole[2], "direction.3": whole[3]}
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert sorted(found) == sorted(wanted)
    for name, tensor in found.items():
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tuple(tensor.shape) == (HIDDEN,)
        np.testing.assert_allclose(tensor.data, wanted[name], rtol=1e-5, atol=1e-6)
    lengths = (shift**2).sum(axis=-1)
    assert made.late_share == pytest.approx(lengths[0].sum() / lengths.sum())
    assert made.unseen_share == pytest.approx(lengths[:, 0].sum() / lengths.sum())


@pytest.mark.parametrize("family", ["idefics3", "gemma3"])
def test_what_is_measured_is_what_the_file_does(family: str) -> None:
    torch.set_num_threads(1)
    model = tiny_model(family)
    config = model.config.get_text_config()
    data = content(layers=config.num_hidden_layers, hidden=config.hidden_size)
    carried = torch.from_numpy(as_carried(read_shift(data)))

    def logits() -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(**tiny_inputs(family)).logits
        return found

    with inject(model, carried[None]):
        ours = logits()
    torch.testing.assert_close(ours, _behind_layers(model, carried[:, 1], logits))
    with inject(model, torch.from_numpy(read_shift(data))[None]):
        exact = logits()
    assert not torch.allclose(ours, exact, atol=1e-4)


def _behind_layers(model: PreTrainedModel, directions: torch.Tensor, logits: Any) -> torch.Tensor:  # noqa: ANN401
    """As llama.cpp does: a direction is added to what a layer gives on, from the second on."""
    layers: Any = find_decoder(model).layers

    def added(direction: torch.Tensor) -> Any:  # noqa: ANN401 - a hook
        def hook(_module: object, _inputs: object, output: Any) -> Any:  # noqa: ANN401
            if isinstance(output, tuple):
                return (output[0] + direction, *output[1:])
            return output + direction

        return hook

    handles = [
        layer.register_forward_hook(added(direction))
        for layer, direction in zip(layers[1:], directions[1:], strict=True)
    ]
    found: torch.Tensor = logits()
    for handle in handles:
        handle.remove()
    return found


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="found only one"):
        write_gguf(tmp_path / "a.gguf", vector=vector(), content=content(layers=1))
    with pytest.raises(InvalidVectorFileError):
        write_gguf(tmp_path / "a.gguf", vector=vector(), content=b"nonsense")
    assert list(tmp_path.iterdir()) == []
    imported = builtins.__import__

    def without(name: str, *others: Any, **more: Any) -> Any:  # noqa: ANN401
        if name == "gguf":
            raise ImportError(name)
        return imported(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match="pip install gguf safetensors"):
        write_gguf(tmp_path / "a.gguf", vector=vector(), content=content())


def test_the_loss_is_measured_on_items_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    description = load_backbone("pocket").description
    data = content(layers=description.num_layers, hidden=description.hidden_size)
    fingerprint = description.fingerprint
    facts: dict[str, Any] = {"file": "gears.gguf", "late_share": 0.25, "unseen_share": 0.5}
    print_loss(facts)
    assert "not measured" in capsys.readouterr().out
    facts["measured"] = measured = measure_loss(
        data, dataset="examples/parts/new", items=6, backbone="pocket", fingerprint=fingerprint
    )
    assert measured["items"] == 6
    losses = measured["loss"]
    assert len({losses["vector"], losses["file"], losses["none"]}) == 3
    print_loss(facts)
    shown = capsys.readouterr().out
    assert "25.0 % of the squared length of its shifts act one layer late, 50.0 %" in shown
    assert f"the file {100 * measured['accuracy']['file']:.1f} % (loss" in shown
    with pytest.raises(IncompatibleBackboneError):
        measure_loss(
            data, dataset="examples/parts/new", items=6, backbone="pocket", fingerprint="a" * 64
        )


def test_the_word_gguf_names_the_file_by_its_vector() -> None:
    assert file_of("gears@2", "gguf") == Path("gears@2.gguf")
    assert file_of("gears@2", "there/g.gguf") == Path("there/g.gguf")
