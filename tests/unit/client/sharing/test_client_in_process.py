from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from transformers import PreTrainedModel

from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.core.vectors.tensors import VectorTensors
from app.method.steering.injection import inject
from app.method.steering.sites import find_decoder
from app.method.steering.vectors import InContextVectors
from tests.fakes.models.applied import file_for, folder_for, logits, text_inputs
from tests.fakes.models.families import tiny_model
from tests.fakes.vectors import make_tensors
from vlibrary_client import (
    CorruptDataError,
    IncompatibleBackboneError,
    InvalidVectorFileError,
    SteeringError,
    UnsupportedBackboneError,
    apply,
)
from vlibrary_client.sharing.folders import FILE_NAME

# One of each way in which a layer joins its branches.
LAYOUTS = (
    "idefics3",
    "gemma3",
    "gemma4",
    "gemma4_experts",
    "mllama",
    "glm4v",
    "cohere2_vision",
    "granite_vision",
)


@pytest.fixture(scope="module", params=LAYOUTS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str) -> PreTrainedModel:
    torch.set_num_threads(1)
    return tiny_model(family)


@pytest.fixture
def small() -> PreTrainedModel:
    return tiny_model("idefics3")


def fail(*_: object) -> None:
    raise RuntimeError("no room")


def test_it_steers_exactly_as_the_service_does(model: PreTrainedModel, family: str) -> None:
    content = file_for(model)
    plain = logits(model, family)
    shift = InContextVectors.from_tensors(decode_vector_file(content)[0]).shift(0.5)
    with inject(model, shift[None]) as receipt:
        wanted = logits(model, family)
    receipt.verify()
    with apply(model, content, strength=0.5) as applied:
        found = logits(model, family)
    assert applied.num_passes == 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert not torch.allclose(found, plain)
    assert torch.equal(logits(model, family), plain)


def test_a_text_alone_is_steered_as_the_service_does(model: PreTrainedModel, family: str) -> None:
    text = text_inputs(model, family)
    content = file_for(model)
    shift = InContextVectors.from_tensors(decode_vector_file(content)[0]).shift(0.5)
    with torch.no_grad():
        plain = model(**text).logits
        with inject(model, shift[None]) as receipt:
            wanted = model(**text).logits
        receipt.verify()
        with apply(model, content, strength=0.5):
            found = model(**text).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert not torch.allclose(found, plain)


class TestSources:
    def test_folders_and_files_are_the_same_vector(
        self, small: PreTrainedModel, tmp_path: Path
    ) -> None:
        folder = folder_for(small, tmp_path)
        results = []
        for source in (folder, str(folder), folder / FILE_NAME, file_for(small)):
            with apply(small, source):
                results.append(logits(small, "idefics3"))
        assert all(torch.equal(result, results[0]) for result in results)

    def test_what_does_not_fit_is_refused(self, small: PreTrainedModel, tmp_path: Path) -> None:
        other = {"architecture": "OtherModel"}
        with pytest.raises(IncompatibleBackboneError, match="OtherModel"):
            apply(small, folder_for(small, tmp_path, backbone=other))
        with pytest.raises(CorruptDataError):
            apply(small, folder_for(small, tmp_path, sha256="0" * 64))
        with pytest.raises(InvalidVectorFileError):
            apply(small, tmp_path / "none")
        with pytest.raises(InvalidVectorFileError):
            apply(small, b"no file")
        thin = make_tensors(num_layers=1, hidden_size=8)
        metadata = {"method": "m2iv", "backbone": "a" * 64}
        with pytest.raises(IncompatibleBackboneError, match="1 layers of width 8"):
            apply(small, encode_vector_file(thin, metadata=metadata))
        with pytest.raises(InvalidVectorFileError, match="finite"):
            apply(small, file_for(small), strength=float("inf"))

    def test_a_hook_that_is_lost_is_noticed(self, small: PreTrainedModel) -> None:
        applied = apply(small, file_for(small))
        applied._handles[2].remove()
        logits(small, "idefics3")
        applied.remove()
        with pytest.raises(SteeringError):
            applied.verify()
        with apply(small, file_for(small)) as unused:
            pass
        assert unused.num_passes == 0

    def test_a_text_behind_a_pass_that_failed_is_steered_in_full(self) -> None:
        model = tiny_model("mllama")
        text = text_inputs(model, "mllama")
        with torch.no_grad(), apply(model, file_for(model)):
            wanted = model(**text).logits
        decoder: Any = find_decoder(model)
        with torch.no_grad(), apply(model, file_for(model)) as applied:
            failing = decoder.norm.register_forward_pre_hook(fail)
            with pytest.raises(RuntimeError, match="no room"):
                logits(model, "mllama")
            failing.remove()
            assert torch.equal(model(**text).logits, wanted)
            assert applied.num_passes == 1

    def test_what_a_failed_pass_reached_does_not_count_for_the_next(
        self, small: PreTrainedModel
    ) -> None:
        applied = apply(small, file_for(small))
        decoder: Any = find_decoder(small)
        failing = decoder.norm.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="no room"):
            logits(small, "idefics3")
        failing.remove()
        applied._handles[2].remove()
        logits(small, "idefics3")
        applied.remove()
        with pytest.raises(SteeringError):
            applied.verify()

    def test_layers_that_join_pictures_without_gates_are_refused(self) -> None:
        model = tiny_model("mllama")
        decoder: Any = find_decoder(model)
        gated = next(layer for layer in decoder.layers if hasattr(layer, "cross_attn_mlp_gate"))
        del gated.cross_attn_mlp_gate
        with pytest.raises(UnsupportedBackboneError, match="cross_attn"):
            apply(model, file_for(model))

    def test_a_model_of_unknown_layers_is_left_as_it_was(self) -> None:
        model = tiny_model("idefics3")
        plain = logits(model, "idefics3")
        decoder: Any = model.get_submodule("model.text_model")
        decoder.layers[-1].register_module("extra", torch.nn.Identity())
        # Such layers may not even run here.
        failing = decoder.layers[0].register_forward_pre_hook(fail)
        with pytest.raises(UnsupportedBackboneError, match="extra"):
            apply(model, file_for(model))
        failing.remove()
        assert torch.equal(logits(model, "idefics3"), plain)

    def test_a_model_without_a_list_of_layers_as_it_says_is_refused(
        self, small: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content, decoder = file_for(small), find_decoder(small)
        layers: Any = decoder.get_submodule("layers")
        layers.append(torch.nn.Identity())
        with pytest.raises(IncompatibleBackboneError, match=f"found {len(layers)} of"):
            apply(small, content)
        monkeypatch.setattr(small, "get_decoder", torch.nn.Identity)
        with pytest.raises(UnsupportedBackboneError, match="list of layers, found Identity"):
            apply(small, content)

    def test_it_does_not_mind_what_is_no_vector(self, small: PreTrainedModel) -> None:
        tensors = decode_vector_file(file_for(small))[0]
        named = {name: torch.tensor(getattr(tensors, name)) for name in vars(tensors)}
        assert isinstance(tensors, VectorTensors)
        with pytest.raises(InvalidVectorFileError, match="wanted"):
            apply(small, save({**named, "more": torch.zeros(1)}))
        broken = {**named, "mlp_weights": named["mlp_weights"][:1].repeat(7)}
        with pytest.raises(InvalidVectorFileError, match="fit"):
            apply(small, save(broken))
        for dtype in (torch.bfloat16, torch.int64):
            broken = {name: part.to(dtype) for name, part in named.items()}
            with pytest.raises(InvalidVectorFileError, match="float32"):
                apply(small, save(broken))
        broken = {**named, "mlp_weights": named["mlp_weights"] * float("nan")}
        with pytest.raises(InvalidVectorFileError, match="finite"):
            apply(small, save(broken))
