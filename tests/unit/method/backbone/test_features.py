from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image
from torch import Tensor

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone, backbone_from_parts
from app.method.backbone.prompts import PromptText, build_prompt, encode_prompts
from app.method.backbone.vision import encode_images
from app.method.steering.greedy import generate_encoded
from tests.fakes.models.backbones import tiny_backbone, tiny_examples, tiny_processor
from tests.fakes.models.family_configs import FAMILIES
from tests.fakes.models.generation import generate

EXAMPLES = tiny_examples(12)
ANSWERS = ["red", "blue", "dark green"]


def prompts_of(backbone: Backbone) -> list[PromptText]:
    return [
        build_prompt(backbone, e.question, e.pictures, demonstrations=EXAMPLES[6 : 6 + index])
        for index, e in enumerate(EXAMPLES[:3])
    ]


def count_vision_calls(backbone: Backbone) -> list[int]:
    calls: list[int] = []
    tower = backbone.model.get_submodule("model.vision_model")

    def note(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        calls.append(len(kwargs["pixel_values"]))

    tower.register_forward_pre_hook(note, with_kwargs=True)
    return calls


def test_cached_features_predict_the_same_as_pixels(
    backbone: Backbone, features: FeatureCache
) -> None:
    prompts = prompts_of(backbone)
    fed = features.encode(prompts, answers=ANSWERS)
    read = encode_prompts(backbone, prompts, answers=ANSWERS)
    assert features.caches_features
    assert "pixel_values" not in fed.inputs
    for key in ("input_ids", "attention_mask"):
        assert torch.equal(fed.inputs[key], read.inputs[key])
    assert fed.answer_ids == read.answer_ids
    assert fed.num_prompt_tokens == read.num_prompt_tokens
    with torch.no_grad():
        found = backbone.model(**fed.inputs, logits_to_keep=fed.predicts_answer).logits
        wanted = backbone.model(**read.inputs, logits_to_keep=read.predicts_answer).logits
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_each_picture_is_computed_once() -> None:
    backbone = tiny_backbone()
    cache, calls = FeatureCache(backbone), count_vision_calls(backbone)
    images = [picture for example in EXAMPLES for picture in example.pictures]
    assert [len(batch) for batch in cache.missing(images)] == [6]
    cache.prepare(images)
    assert not cache.missing(images)
    cache.summaries(images)
    cache.encode(prompts_of(backbone))
    assert sum(calls) == 6


def test_a_small_cache_computes_again_what_it_dropped() -> None:
    backbone = tiny_backbone()
    cache = FeatureCache(backbone, max_bytes=1)
    wanted = FeatureCache(backbone).encode(prompts_of(backbone), answers=ANSWERS)
    found = cache.encode(prompts_of(backbone), answers=ANSWERS)
    calls = count_vision_calls(backbone)
    cache.encode(prompts_of(backbone), answers=ANSWERS)
    assert sum(calls) > 0
    with torch.no_grad():
        logits = [backbone.model(**batch.inputs).logits for batch in (found, wanted)]
    torch.testing.assert_close(logits[0], logits[1], atol=2e-5, rtol=0)


def test_lengths_are_counted_without_encoding(backbone: Backbone, features: FeatureCache) -> None:
    prompts = prompts_of(backbone)
    wanted = list(encode_prompts(backbone, prompts).num_prompt_tokens)
    assert features.count_tokens(prompts) == wanted
    text_only = [build_prompt(backbone, "why?", [])]
    assert features.count_tokens(text_only) == list(
        encode_prompts(backbone, text_only).num_prompt_tokens
    )


def test_prompts_without_pictures_need_no_features(
    backbone: Backbone, features: FeatureCache
) -> None:
    batch = features.encode([build_prompt(backbone, "why?", [])])
    assert set(batch.inputs) == {"input_ids", "attention_mask"}


def test_a_processor_that_writes_placeholders_differently_is_left_to_read_pixels() -> None:
    backbone = tiny_backbone()
    tokenizer: Any = backbone.tokenizer
    plain_call = type(backbone.processor).__call__

    class Wordy(type(backbone.processor)):  # type: ignore[misc] # the class is only known here
        def __call__(self, images: Any = None, text: Any = None, **options: Any) -> Any:  # noqa: ANN401
            longer = [f"{part} {part[-4:]}" for part in text] if len(text[0]) > 20 else text
            return plain_call(self, images, longer, **options)

    backbone.processor.__class__ = Wordy
    cache = FeatureCache(backbone)
    prompts = prompts_of(backbone)
    batch = cache.encode(prompts, answers=ANSWERS)
    assert not cache.caches_features
    assert "pixel_values" in batch.inputs
    assert tokenizer.decode(batch.inputs["input_ids"][0]).count("Assistant") == 1
    lengths = cache.count_tokens(prompts)
    assert all(abs(a - b) <= 3 for a, b in zip(lengths, batch.num_prompt_tokens, strict=True))


def test_placeholders_and_pictures_must_match(backbone: Backbone, features: FeatureCache) -> None:
    features.encode(prompts_of(backbone))
    wrong = PromptText(text="<image> <image> what?", images=EXAMPLES[0].pictures)
    with pytest.raises(InvalidInputError, match="wanted 1, found 2"):
        features.encode([wrong])


def test_a_picture_the_processor_cannot_read_is_refused(features: FeatureCache) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        features.prepare([Picture.of(b"no picture")])


def with_processor(family: str, processor: hf.ProcessorMixin, *, image_token_id: int) -> Backbone:
    config: Any = FAMILIES[family].config()
    config.image_token_id = image_token_id
    text = config.get_text_config()
    text.vocab_size, text.max_position_embeddings = len(processor.tokenizer), 1024
    make: Any = hf.AutoModelForImageTextToText.from_config
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return backbone_from_parts(make(config), processor, name=family)


def llava() -> Backbone:
    source: Any = tiny_processor()
    size = {"height": 16, "width": 16}
    wrap: Any = hf.LlavaProcessor
    processor = wrap(
        hf.CLIPImageProcessorPil(size=size, crop_size=size),
        source.tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=source.chat_template,
    )
    token = source.tokenizer.convert_tokens_to_ids("<image>")
    return with_processor("llava", processor, image_token_id=token)


def gemma3() -> Backbone:
    source: Any = tiny_processor()
    tokenizer = source.tokenizer
    names = {"boi": "<start_of_image>", "image": "<image_soft_token>", "eoi": "<end_of_image>"}
    tokenizer.add_special_tokens({"additional_special_tokens": list(names.values())})
    for name, token in names.items():
        setattr(tokenizer, f"{name}_token", token)
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size={"height": 16, "width": 16}),
        tokenizer,
        image_seq_length=4,
        chat_template=source.chat_template.replace("<image>", names["boi"]),
    )
    return with_processor("gemma3", processor, image_token_id=tokenizer.image_token_id)


@pytest.mark.parametrize("make", [llava, gemma3])
def test_other_processors_are_followed_exactly(make: Callable[[], Backbone]) -> None:
    backbone = make()
    cache, prompts = FeatureCache(backbone), prompts_of(backbone)
    fed = cache.encode(prompts, answers=ANSWERS)
    read = encode_prompts(backbone, prompts, answers=ANSWERS)
    assert cache.caches_features
    assert set(read.inputs) - {"pixel_values"} == set(fed.inputs) - {"mm_encoder_outputs"}
    for key in read.inputs.keys() - {"pixel_values"}:
        assert torch.equal(fed.inputs[key], read.inputs[key])
    assert cache.count_tokens(prompts) == list(read.num_prompt_tokens)
    with torch.no_grad():
        found = backbone.model(**fed.inputs, logits_to_keep=fed.predicts_answer).logits
        wanted = backbone.model(**read.inputs, logits_to_keep=read.predicts_answer).logits
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_a_processor_with_masks_over_images_is_left_to_read_pixels() -> None:
    backbone = tiny_backbone()
    plain_call = type(backbone.processor).__call__

    class Masking(type(backbone.processor)):  # type: ignore[misc] # the class is only known here
        def __call__(self, **options: object) -> hf.BatchFeature:
            features: hf.BatchFeature = plain_call(self, **options)
            features["cross_attention_mask"] = features["attention_mask"][..., None]
            return features

    backbone.processor.__class__ = Masking
    cache = FeatureCache(backbone)
    batch = cache.encode(prompts_of(backbone), answers=ANSWERS)
    assert not cache.caches_features
    assert batch.inputs["cross_attention_mask"].shape[1] == batch.inputs["input_ids"].shape[1]


def test_pictures_whose_shares_cannot_be_told_are_computed_singly(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FeatureCache(backbone).summaries([e.image for e in EXAMPLES])

    def only_singly(*args: Any, count: int, **options: Any) -> Any:  # noqa: ANN401
        return encode_images(*args, count=count, **options) if count == 1 else None

    monkeypatch.setattr("app.method.backbone.features.encode_images", only_singly)
    found = FeatureCache(backbone).summaries([e.image for e in EXAMPLES])
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def idefics() -> Backbone:
    source = tiny_processor()
    pixels = hf.IdeficsImageProcessorPil(image_size=16)
    wrap: Any = hf.IdeficsProcessor
    processor = wrap(pixels, source.tokenizer)
    processor.tokenizer.bos_token = "<|im_start|>"  # noqa: S105 - a token of text
    config: Any = FAMILIES["idefics"].config()
    config.vocab_size, config.max_position_embeddings = len(processor.tokenizer), 1024
    make: Any = hf.AutoModelForImageTextToText.from_config
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return backbone_from_parts(make(config), processor, name="idefics")


def test_the_first_idefics_reads_interleaved_prompts_and_is_steered(
    idefics: Backbone, random_shifts: Callable[..., Tensor]
) -> None:
    cache = FeatureCache(idefics)
    prompts = prompts_of(idefics)
    assert not cache.caches_features
    batch = cache.encode(prompts, answers=ANSWERS)
    assert batch.inputs["pixel_values"].shape[:2] == (3, 3)
    image_token = idefics.tokenizer.convert_tokens_to_ids("<image>")
    assert (batch.inputs["input_ids"] == image_token).sum(1).tolist() == [1, 2, 3]
    shifts = random_shifts(1)
    steered = generate_encoded(idefics, cache.encode(prompts), shifts=shifts, max_new_tokens=3)
    wanted = generate(idefics, prompts, shifts=shifts, max_new_tokens=3)
    assert steered == [one.token_ids for one in wanted]
    assert cache.summaries([e.image for e in EXAMPLES[:3]]).shape == (3, 24)
    lengths = cache.count_tokens(prompts)
    assert all(0 <= a - b <= 3 for a, b in zip(lengths, batch.num_prompt_tokens, strict=True))


def test_no_more_summaries_are_kept_than_allowed(backbone: Backbone) -> None:
    cache = FeatureCache(backbone, max_summaries=2)
    pictures = [
        Picture.of(Image.new("RGB", (16, 16), (shade, 0, 0))) for shade in (10, 90, 170, 250)
    ]
    wanted = FeatureCache(backbone).summaries(pictures)
    # More at once than are kept, and again what was dropped.
    for _ in range(2):
        torch.testing.assert_close(cache.summaries(pictures), wanted)
        assert len(cache._summaries) == 2


def test_pictures_of_ever_new_sizes_take_no_ever_growing_memory(
    backbone: Backbone, features: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.method.backbone.placeholders._KEPT_SIZES", 8)
    pictures = [Picture.of(Image.new("RGB", (32 + extra, 32))) for extra in range(40)]
    prompts = [build_prompt(backbone, "why?", picture) for picture in pictures]
    wanted = list(encode_prompts(backbone, prompts).num_prompt_tokens)
    assert features.count_tokens(prompts) == wanted
    assert features._placeholders is not None
    assert len(features._placeholders._of_size) <= 8
    assert features.count_tokens(prompts) == wanted
