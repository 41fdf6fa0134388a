from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForImageTextToText,
    ChameleonConfig,
    Idefics3Config,
    PreTrainedModel,
)

from app.method.steering import sites
from app.method.steering.sites import find_decoder
from tests.fakes.models.applied import file_for, folder_for, logits, text_inputs
from tests.fakes.models.families import tiny_inputs, tiny_model
from tests.fakes.models.family_configs import FAMILIES
from tests.fakes.models.family_sizes import MINICPM3, TEXT, VISION
from vlibrary_client import SteeringError, UnsupportedBackboneError, apply, decoders


@pytest.fixture
def small() -> PreTrainedModel:
    return tiny_model("idefics3")


def test_a_model_that_was_compiled_is_steered_until_the_vector_is_taken_off(
    small: PreTrainedModel,
) -> None:
    content, text = file_for(small), text_inputs(small, "idefics3")
    plain = small(**text).logits
    with apply(small, content):
        wanted = small(**text).logits
    compiled: Any = torch.compile(small, backend="eager")
    found = [compiled(**text).logits]
    with apply(compiled, content) as applied:
        found.append(compiled(**text).logits)
        # Nor is it compiled again with every pass.
        with torch.compiler.set_stance("fail_on_recompile"):
            found += [compiled(**text).logits for _ in range(2)]
    found.append(compiled(**text).logits)
    assert applied.num_passes == 3
    for result, expected in zip(found, [plain, *[wanted] * 3, plain], strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("family", ["idefics3", "mllama"])
def test_threads_do_not_count_each_others_sites(family: str) -> None:
    model = tiny_model(family)
    texts = [text_inputs(model, family), tiny_inputs(family)] * 2
    with apply(model, file_for(model)), ThreadPoolExecutor(4) as pool:
        wanted = [model(**text).logits for text in texts]
        for _ in range(5):
            found = pool.map(lambda text: model(**text).logits, texts)
            assert all(map(torch.equal, found, wanted))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # by PEFT
def test_an_adapter_of_peft_is_steered_as_the_model_that_it_wraps(
    small: PreTrainedModel, tmp_path: Path
) -> None:
    folder = folder_for(small, tmp_path)
    with apply(small, folder):
        wanted = logits(small, "idefics3")
    adapted: Any = get_peft_model(small, LoraConfig(target_modules=["q_proj"]))
    with apply(adapted, folder):
        torch.testing.assert_close(logits(adapted, "idefics3"), wanted)


def test_a_vector_that_is_applied_in_inference_mode_steers_outside_of_it(
    small: PreTrainedModel,
) -> None:
    with torch.inference_mode():
        applied = apply(small, file_for(small))
    with applied:
        logits(small, "idefics3")
    assert applied.num_passes == 1


def num_conversions(model: PreTrainedModel, text: dict[str, torch.Tensor]) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        model(**text)
    return sum(event.count for event in seen.key_averages() if event.key == "aten::_to_copy")


def test_no_pass_converts_the_vector_again(small: PreTrainedModel) -> None:
    torch.nn.Module.to(small, torch.bfloat16)
    text = text_inputs(small, "idefics3")
    plain = num_conversions(small, text)
    with apply(small, file_for(small)):
        assert num_conversions(small, text) == plain > 0


def test_layers_whose_weights_are_offloaded_are_steered(small: PreTrainedModel) -> None:
    text, content = text_inputs(small, "idefics3"), file_for(small)
    with apply(small, content):
        wanted = small(**text).logits
    decoder: Any = find_decoder(small)
    for layer in decoder.layers:
        accelerate.cpu_offload(layer, execution_device="cpu")
    with apply(small, content):
        torch.testing.assert_close(small(**text).logits, wanted)


def test_what_is_no_model_of_transformers_is_refused() -> None:
    with pytest.raises(UnsupportedBackboneError, match="wanted a PreTrainedModel"):
        apply(torch.nn.Linear(2, 2), file_for(tiny_model("idefics3")))


@pytest.mark.parametrize(("setting", "value"), [("norm_after", True), ("swin_norm", True)])
def test_layers_that_change_what_a_branch_adds_are_refused(setting: str, value: object) -> None:
    make: Any = AutoModelForImageTextToText.from_config
    config: Any = ChameleonConfig(num_hidden_layers=1, vocabulary_map={"<image>": 4})
    setattr(config, setting, value)
    with torch.device("meta"):
        model: PreTrainedModel = make(config)
    with pytest.raises(UnsupportedBackboneError, match=f"as they are, found {setting} {value}"):
        apply(model, file_for(model))


def scaled() -> PreTrainedModel:
    make: Any = AutoModelForImageTextToText.from_config
    text = {**TEXT, **MINICPM3}
    model: PreTrainedModel = make(Idefics3Config(text_config=text, vision_config=VISION))
    return model


def num_hooks(model: PreTrainedModel) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_layers_that_no_setting_tells_to_scale_what_a_branch_adds_are_refused() -> None:
    model = scaled()
    before = num_hooks(model)
    with pytest.raises(UnsupportedBackboneError, match="MiniCPM3DecoderLayer 0, which scales"):
        apply(model, file_for(model))
    assert num_hooks(model) == before


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_known_family_is_taken_for_one_that_scales(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family)
    torch.nn.Module.to(model, dtype)
    content = file_for(model)
    # Also where another vector steers already.
    with apply(model, content) as first, apply(model, content):
        assert first.num_passes == 0


def test_the_sdk_and_the_service_refuse_the_same_layers() -> None:
    # Neither imports the other, so each has its own.
    assert decoders.ADDED_AS_IT_IS == sites._ADDED_AS_IT_IS


def test_a_handle_that_is_used_up_does_not_steer_in_silence(small: PreTrainedModel) -> None:
    applied = apply(small, file_for(small))
    with applied:
        logits(small, "idefics3")
    with pytest.raises(SteeringError, match="call apply again"), applied:
        logits(small, "idefics3")
