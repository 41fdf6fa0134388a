import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import ConfigurationError, NotFoundError, UnsupportedBackboneError
from app.method.backbone.loading import Backbone, backbone_from_parts, load_backbone
from app.method.backbone.prompts import build_prompt
from tests.fakes.models.backbones import (
    tiny_backbone,
    tiny_examples,
    tiny_processed_model,
    tiny_processor,
)
from tests.fakes.models.generation import generate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("checkpoint")
    processor = tiny_processor()
    save: Any = tiny_processed_model(processor).save_pretrained
    save(place)
    processor.save_pretrained(place)
    return place


def test_a_folder_is_loaded_with_its_processor(folder: Path, backbone: Backbone) -> None:
    loaded = load_backbone(str(folder))
    example = tiny_examples(1)[0]
    answers = [
        generate(one, [build_prompt(one, example.question, example.pictures)], max_new_tokens=5)
        for one in (loaded, backbone)
    ]
    assert answers[0] == answers[1]
    assert (loaded.num_layers, loaded.hidden_size) == (3, 32)
    assert loaded.device.type == "cpu"
    assert loaded.dtype == torch.float32
    assert loaded.name == str(folder)
    assert loaded.description.max_position_embeddings == 1024


def test_a_backbone_is_frozen_and_in_evaluation_mode(backbone: Backbone) -> None:
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_generation_ends_at_the_end_of_the_turn_too(backbone: Backbone) -> None:
    tokenizer = backbone.tokenizer
    wanted = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_utterance>")}
    assert set(backbone.eos_token_ids) == wanted


def test_equal_parts_have_equal_fingerprints_and_padding_does_not_matter() -> None:
    first, second = tiny_backbone(), tiny_backbone()
    first.tokenizer(["a", "long text"], padding=True)
    again = backbone_from_parts(first.model, first.processor, name="another name")
    assert again.description.fingerprint == second.description.fingerprint
    assert len(again.description.fingerprint) == 64


def test_every_part_is_in_the_fingerprint() -> None:
    base = tiny_backbone().description.fingerprint
    other_weights = tiny_backbone(seed=1).description.fingerprint
    processor: Any = tiny_processor()
    model = tiny_processed_model(processor)

    def fingerprint() -> str:
        return backbone_from_parts(model, processor, name="x").description.fingerprint

    found = {base, other_weights}
    processor.chat_template += " "
    found.add(fingerprint())
    processor.image_processor.image_mean = [0.1, 0.1, 0.1]
    found.add(fingerprint())
    processor.tokenizer.add_tokens(["something new"])
    found.add(fingerprint())
    assert len(found) == 5


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        ("text_config", "rms_norm_eps", 1e-2),
        ("text_config", "hidden_act", "gelu"),
        ("text_config", "rope_parameters", {"rope_type": "default", "rope_theta": 5e4}),
        ("vision_config", "hidden_act", "relu"),
        (None, "scale_factor", 4),
    ],
)
def test_every_setting_is_in_the_fingerprint(part: str | None, setting: str, value: object) -> None:
    made = tiny_backbone()
    config: Any = made.model.config
    setattr(getattr(config, part) if part else config, setting, value)
    changed = backbone_from_parts(made.model, made.processor, name="x").description
    assert changed.fingerprint != made.description.fingerprint
    assert changed.digests["revision"] == made.description.digests["revision"]


def test_ends_of_an_answer_are_in_the_fingerprint() -> None:
    made = tiny_backbone()
    generation: Any = made.model.generation_config
    generation.eos_token_id = [4, 20]
    changed = backbone_from_parts(made.model, made.processor, name="x")
    assert changed.description.fingerprint != made.description.fingerprint


def test_any_weight_is_in_the_fingerprint() -> None:
    made = tiny_backbone()
    weight = made.model.get_parameter("model.text_model.layers.1.mlp.up_proj.weight")
    weight[3, 3] += 0.5
    changed = backbone_from_parts(made.model, made.processor, name="x")
    assert changed.description.fingerprint != made.description.fingerprint


def test_pickled_weights_are_refused_in_words(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pickled"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(NotFoundError, match="safetensors"):
        load_backbone(str(copy))


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq"])
def test_quantised_weights_are_loaded_or_refused_in_words(
    method: str, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / method
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    options = {"load_in_4bit": True} if method == "bitsandbytes" else {"bits": 4, "group_size": 32}
    config["quantization_config"] = {"quant_method": method, **options}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedBackboneError, match=f"quantised by {method}: .+") as caught:
        load_backbone(str(copy))
    assert "Traceback" not in caught.value.message


def test_settings_choose_device_and_dtype(folder: Path) -> None:
    loaded = load_backbone(str(folder), device="cpu", dtype="bfloat16", attention="eager")
    assert loaded.dtype == torch.bfloat16
    assert loaded.model.config.get_text_config()._attn_implementation == "eager"
    full = load_backbone(str(folder))
    assert loaded.description.fingerprint == full.description.fingerprint


@pytest.mark.parametrize("device", ["cuda:99", "mps:99", "meta"])
def test_a_device_that_is_not_there_is_told(device: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"Cannot compute on {device}: wanted a device"):
        load_backbone(str(folder), device=device)


@pytest.mark.parametrize("setting", [{"device": "abacus"}, {"dtype": "float7"}])
def test_unknown_settings_are_refused(setting: dict[str, str], folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="wanted auto"):
        load_backbone(str(folder), **setting)


def test_the_bundled_backbone_needs_no_network() -> None:
    pocket = load_backbone("pocket")
    example = tiny_examples(1)[0]
    answer = generate(pocket, [build_prompt(pocket, "what color is it?", example.pictures)])[0]
    assert pocket.name == pocket.description.name == "pocket"
    assert answer.finish_reason == "stop"
    assert answer.text


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no-such-folder"):
        load_backbone(str(tmp_path / "no-such-folder"))


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UnsupportedBackboneError, match="wanted an image-text-to-text model"):
        load_backbone(str(tmp_path))


def test_a_template_that_only_the_tokenizer_has_writes_prompts(backbone: Backbone) -> None:
    processor: Any = tiny_processor()
    processor.tokenizer.chat_template, processor.chat_template = processor.chat_template, None
    found = backbone_from_parts(tiny_processed_model(processor), processor, name="x")
    assert found.answer_format == backbone.answer_format
    assert found.description.fingerprint == backbone.description.fingerprint


def test_the_end_token_pads_where_nothing_else_does() -> None:
    processor: Any = tiny_processor()
    model = tiny_processed_model(processor)
    processor.tokenizer.pad_token = None
    padded = backbone_from_parts(model, processor, name="x")
    assert padded.tokenizer.pad_token_id == padded.tokenizer.eos_token_id
    processor.tokenizer.pad_token = None
    processor.tokenizer.eos_token = None
    with pytest.raises(UnsupportedBackboneError, match="cannot pad"):
        backbone_from_parts(model, processor, name="x")
