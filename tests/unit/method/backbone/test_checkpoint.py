"""What is wrong with a checkpoint is told apart, and what is only unusual is loaded."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from app.core.errors import (
    ConfigurationError,
    NotFoundError,
    UnsupportedBackboneError,
    VLibraryError,
)
from app.method.backbone.checkpoint.models import CheckpointPlace, load_model, read_config
from app.method.backbone.checkpoint.processors import load_processor
from app.method.backbone.loading import load_backbone
from tests.fakes.checkpoints.families import CHECKPOINTS
from tests.fakes.models.backbones import tiny_model, tiny_processed_model, tiny_processor

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    save(place, processor := tiny_processor(), tiny_processed_model(processor))
    return place


def save(place: Path, processor: Any, model: Any, **options: object) -> None:  # noqa: ANN401
    model.save_pretrained(place, **options)
    processor.save_pretrained(place)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "checkpoint")


def refusal(folder: Path) -> VLibraryError:
    with pytest.raises((NotFoundError, UnsupportedBackboneError)) as caught:
        load_backbone(str(folder))
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def set_in(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_without_a_checkpoint_is_no_backbone(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert isinstance(error, NotFoundError)
    assert "config.json" in error.message


def test_an_invalid_configuration_is_called_that(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "an invalid config.json: " in refusal(folder).message


def test_an_invalid_value_of_the_configuration_is_told(folder: Path) -> None:
    set_in(folder / "config.json", text_config={"model_type": "llama", "hidden_size": "wide"})
    message = refusal(folder).message
    assert "an invalid config.json: " in message
    assert "'hidden_size': " in message


def test_an_invalid_file_of_tokens_that_end_a_text_is_told(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{")
    assert "an invalid generation_config.json: " in refusal(folder).message


def test_an_unknown_model_type_is_told(folder: Path) -> None:
    set_in(folder / "config.json", model_type="lvlm9000")
    assert "lvlm9000" in refusal(folder).message


@pytest.mark.parametrize(
    ("kind", "reason"), [("dots3_note", "may vary across layers"), ("pi0", "num_hidden_layers")]
)
def test_a_decoder_without_one_size_of_each_kind_is_refused(
    kind: str, reason: str, folder: Path
) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    assert re.search(f"found a text decoder without one size.*{reason}", refusal(folder).message)


def test_code_of_a_checkpoint_is_never_run(folder: Path) -> None:
    marked = folder / "ran"
    (folder / "mine.py").write_text(f"open({str(marked)!r}, 'w').close()\n")
    auto_map = {"AutoConfig": "mine.Config", "AutoModelForImageTextToText": "mine.Model"}
    set_in(folder / "config.json", model_type="lvlm9000", auto_map=auto_map)
    assert "code of its own (auto_map in config.json)" in refusal(folder).message
    assert not marked.exists()


def test_a_missing_processor_is_called_that(folder: Path) -> None:
    for path in folder.glob("*"):
        if path.name not in {"config.json", "generation_config.json", WEIGHTS}:
            path.unlink()
    assert "processor" in refusal(folder).message


def test_a_processor_without_pictures_is_called_that(folder: Path) -> None:
    (folder / "processor_config.json").unlink()
    assert "processor" in refusal(folder).message


def test_a_missing_file_of_weights_is_named(folder: Path, whole: Path) -> None:
    (folder / WEIGHTS).unlink()
    weights = load_file(whole / WEIGHTS)
    files = {
        name: f"model-0000{1 + place % 2}-of-00002.safetensors"
        for place, name in enumerate(weights)
    }
    set_in_new(folder / f"{WEIGHTS}.index.json", {"metadata": {}, "weight_map": files})
    first = {name: weights[name] for name in weights if "00001-of" in files[name]}
    save_file(first, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    message = refusal(folder).message
    assert "1 of the 2 files" in message
    assert "model-00002-of-00002.safetensors" in message


def set_in_new(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def test_a_checkpoint_in_several_files_is_loaded(tmp_path: Path, whole: Path) -> None:
    processor = tiny_processor()
    save(tmp_path, processor, tiny_processed_model(processor), max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    one, several = load_backbone(str(whole)), load_backbone(str(tmp_path))
    for (_, mine), (_, theirs) in zip(
        one.model.named_parameters(), several.model.named_parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kept", [4, 100, 20_000])
def test_a_damaged_file_of_weights_is_named(folder: Path, kept: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    assert f"a damaged {WEIGHTS}: " in refusal(folder).message


def test_a_checkpoint_with_missing_weights_is_refused(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    gone = [name for name in weights if "layers.1.mlp" in name]
    for name in gone:
        del weights[name]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    message = refusal(folder).message
    assert f"{len(gone)} weights missing" in message
    assert gone[0] in message


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    weights[name] = weights[name][:-1].clone()
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    message = refusal(folder).message
    assert f"1 weights of another shape: model.text_{name.removeprefix('model.text_')}" in message
    assert "(47, 32) instead of (48, 32)" in message


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_computed_with_as_asked(dtype: torch.dtype, tmp_path: Path) -> None:
    processor: Any = tiny_processor()
    model: Any = tiny_processed_model(processor)
    place = tmp_path / "a folder with spaces"
    save(place, processor, model.to(dtype))
    stored = load_file(place / WEIGHTS)
    assert {value.dtype for value in stored.values()} == {dtype}
    loaded = load_backbone(str(place))
    assert loaded.dtype == torch.float32
    assert load_backbone(str(place), dtype=str(dtype).removeprefix("torch.")).dtype == dtype


@pytest.mark.parametrize("family", ["mistral3", "qwen2_vl"])
def test_a_processor_is_read_with_all_of_its_settings(family: str, tmp_path: Path) -> None:
    parts = CHECKPOINTS[family]()
    parts.processor.save_pretrained(tmp_path)
    parts.config.save_pretrained(tmp_path)
    found: Any = load_processor(str(tmp_path), parts.config)
    assert type(found).__name__ == type(parts.processor).__name__
    assert found.chat_template == parts.processor.chat_template
    assert found.to_dict() == parts.processor.to_dict()


def test_a_family_without_an_attention_gets_eager(tmp_path: Path) -> None:
    made: Any = tiny_model("paligemma2")
    made.save_pretrained(tmp_path)
    checkpoint = CheckpointPlace(source="paligemma2", place=str(tmp_path))
    with capture_logs() as logs:
        model = load_model(
            checkpoint, read_config(checkpoint), dtype=torch.float32, attention="sdpa"
        )
    assert model.config.get_text_config()._attn_implementation == "eager"
    assert [log for log in logs if "eager" in log["event"]]


@pytest.fixture
def hub(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub in which me/lvlm has two commits: the head of main, and the tag `old`."""
    repository = tmp_path / "hub" / "models--me--lvlm"
    (repository / "refs").mkdir(parents=True)
    for name, commit in (("main", "b" * 40), ("old", "a" * 40)):
        (repository / "refs" / name).write_text(commit)
        shutil.copytree(whole, repository / "snapshots" / commit)
    template = repository / "snapshots" / ("a" * 40) / "chat_template.jinja"
    template.write_text(template.read_text() + "{# old #}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(repository.parent))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return repository


def test_a_revision_of_the_hub_is_loaded_in_all_of_its_parts(hub: Path) -> None:
    assert hub.is_dir()
    newest, old = load_backbone("me/lvlm"), load_backbone("me/lvlm", revision="old")
    assert newest.description.digests["revision"] == "b" * 40
    assert old.description.digests["revision"] == "a" * 40
    assert str(old.processor.chat_template).endswith("{# old #}")
    assert not str(newest.processor.chat_template).endswith("{# old #}")
    again = load_backbone("me/lvlm", revision="a" * 40)
    assert again.description.fingerprint == old.description.fingerprint


def test_a_branch_that_moves_while_it_is_read_is_one_commit(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_move(checkpoint: CheckpointPlace) -> Any:  # noqa: ANN401
        config = read_config(checkpoint)
        (hub / "refs" / "main").write_text("a" * 40)
        return config

    monkeypatch.setattr("app.method.backbone.loading.read_config", read_and_move)
    loaded = load_backbone("me/lvlm")
    assert loaded.description.digests["revision"] == "b" * 40
    assert not str(loaded.processor.chat_template).endswith("{# old #}")


def test_a_revision_that_is_not_there_is_named(hub: Path) -> None:
    assert hub.is_dir()
    with pytest.raises(NotFoundError, match="me/lvlm at nowhere"):
        load_backbone("me/lvlm", revision="nowhere")


@pytest.mark.parametrize("source", ["pocket", "folder"])
def test_a_folder_has_no_revision(source: str, folder: Path) -> None:
    place = str(folder) if source == "folder" else source
    with pytest.raises(ConfigurationError, match="of a hub id: wanted one, found"):
        load_backbone(place, revision="main")


def test_code_of_a_checkpoint_on_the_hub_is_never_run(hub: Path) -> None:
    config = hub / "snapshots" / ("b" * 40) / "config.json"
    set_in(config, model_type="lvlm9000", auto_map={"AutoConfig": "mine.Config"})
    with pytest.raises(UnsupportedBackboneError, match="code of its own"):
        load_backbone("me/lvlm")
