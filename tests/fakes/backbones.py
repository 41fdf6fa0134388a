"""Tiny random backbones of every family that must work, and one with a real processor.

Built from the families' own configuration classes, so that layouts, masks and position rules are the
real ones. Projections of queries, keys, values and outputs are scaled up: with the initial weights a
tiny model hardly notices positions, and a wrong mask or position would pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import tokenizers
import torch
import transformers as hf
from PIL import Image
from torch import Tensor, nn

from app.method.backbone import Backbone, backbone_from_parts
from app.method.examples import Example

LAYERS: Final = 3
HIDDEN: Final = 32
VOCAB: Final = 96
IMAGE_TOKEN: Final = 90
SCALE: Final = 6.0
_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj")

_TEXT: Final[dict[str, Any]] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_VISION: Final[dict[str, Any]] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to build one family's model and the image part of its inputs."""

    name: str
    config: Callable[[], hf.PreTrainedConfig]
    images: Callable[[int, torch.Generator], dict[str, Tensor]]
    has_placeholders: bool = True
    attention: str = "sdpa"
    token_types: tuple[str, ...] = ()


def _pixels(*shape: int) -> Callable[[int, torch.Generator], dict[str, Tensor]]:
    def make(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"pixel_values": torch.randn((rows, *shape), generator=generator)}

    return make


def _sized_pixels(*shape: int) -> Callable[[int, torch.Generator], dict[str, Tensor]]:
    def make(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        size = shape[-2:]
        pixels = torch.randn((rows, *shape), generator=generator)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([size] * rows)}

    return make


def _qwen_pixels(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    grid = torch.tensor([[1, 4, 4]] * rows)
    patches = torch.randn((rows * 16, 3 * 2 * 4 * 4), generator=generator)
    return {"pixel_values": patches, "image_grid_thw": grid}


def _mllama_pixels(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.randn((rows, 1, 1, 3, 16, 16), generator=generator),
        "aspect_ratio_ids": torch.ones((rows, 1), dtype=torch.long),
        "aspect_ratio_mask": torch.ones((rows, 1, 1), dtype=torch.long),
    }


def _idefics_config() -> hf.PreTrainedConfig:
    text = {key: value for key, value in _TEXT.items() if key != "num_key_value_heads"}
    vision = {**_VISION, "embed_dim": 24}
    del vision["hidden_size"]
    return hf.IdeficsConfig(
        **text,
        additional_vocab_size=0,
        alpha_initializer="ones",
        cross_layer_interval=LAYERS,
        use_resampler=False,
        vision_config=vision,
    )


def _idefics2_config() -> hf.PreTrainedConfig:
    perceiver = {
        "hidden_size": HIDDEN,
        "resampler_n_latents": 3,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "num_key_value_heads": 1,
        "resampler_head_dim": 8,
    }
    return hf.Idefics2Config(
        text_config={"model_type": "mistral", **_TEXT, "sliding_window": None},
        vision_config=_VISION,
        perceiver_config=perceiver,
        image_token_id=IMAGE_TOKEN,
        tie_word_embeddings=False,
    )


def _idefics3_like(kind: type[Any]) -> Callable[[], hf.PreTrainedConfig]:
    def make() -> hf.PreTrainedConfig:
        config: hf.PreTrainedConfig = kind(
            text_config={"model_type": "llama", **_TEXT},
            vision_config=_VISION,
            image_token_id=IMAGE_TOKEN,
            scale_factor=2,
            tie_word_embeddings=False,
            pad_token_id=0,
        )
        return config

    return make


def _llava_like(kind: type[Any], **extra: Any) -> Callable[[], hf.PreTrainedConfig]:
    def make() -> hf.PreTrainedConfig:
        config: hf.PreTrainedConfig = kind(
            text_config={"model_type": "llama", **_TEXT},
            vision_config={"model_type": "clip_vision_model", **_VISION},
            image_token_index=IMAGE_TOKEN,
            tie_word_embeddings=False,
            **extra,
        )
        return config

    return make


def _onevision_config() -> hf.PreTrainedConfig:
    return hf.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_TEXT},
        vision_config={"model_type": "siglip_vision_model", **_VISION},
        image_token_index=IMAGE_TOKEN,
        video_token_index=IMAGE_TOKEN + 1,
        image_grid_pinpoints=[[16, 16]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )


def _qwen_config(
    kind: type[Any], vision: dict[str, Any], sections: list[int]
) -> Callable[[], hf.PreTrainedConfig]:
    def make() -> hf.PreTrainedConfig:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
        config: hf.PreTrainedConfig = kind(
            text_config={**_TEXT, "rope_parameters": rope, "head_dim": 8},
            vision_config={"in_channels": 3, "patch_size": 4, "depth": 2, "num_heads": 2, **vision},
            image_token_id=IMAGE_TOKEN,
            video_token_id=IMAGE_TOKEN + 1,
            vision_start_token_id=IMAGE_TOKEN + 2,
            vision_end_token_id=IMAGE_TOKEN + 3,
            tie_word_embeddings=False,
        )
        return config

    return make


_QWEN_VISION: Final[dict[str, Any]] = {
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "hidden_size": 24,
    "intermediate_size": 32,
    "out_hidden_size": HIDDEN,
}


def _internvl_config() -> hf.PreTrainedConfig:
    return hf.InternVLConfig(
        text_config={"model_type": "qwen2", **_TEXT},
        vision_config={**_VISION, "image_size": [16, 16], "patch_size": [4, 4]},
        image_token_id=IMAGE_TOKEN,
        image_seq_length=4,
        tie_word_embeddings=False,
    )


def _gemma3_config() -> hf.PreTrainedConfig:
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    return hf.Gemma3Config(
        text_config={
            **_TEXT,
            "head_dim": 8,
            "layer_types": layers,
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
        },
        vision_config=_VISION,
        mm_tokens_per_image=4,
        image_token_index=IMAGE_TOKEN,
        tie_word_embeddings=False,
    )


def _paligemma_config(text_kind: str) -> Callable[[], hf.PreTrainedConfig]:
    def make() -> hf.PreTrainedConfig:
        return hf.PaliGemmaConfig(
            text_config={"model_type": text_kind, **_TEXT, "head_dim": 8},
            vision_config={
                "model_type": "siglip_vision_model",
                **_VISION,
                "projection_dim": HIDDEN,
            },
            projection_dim=HIDDEN,
            image_token_index=IMAGE_TOKEN,
            tie_word_embeddings=False,
        )

    return make


def _mistral3_config() -> hf.PreTrainedConfig:
    return hf.Mistral3Config(
        text_config={"model_type": "mistral", **_TEXT, "head_dim": 8, "sliding_window": None},
        vision_config={"model_type": "pixtral", **_VISION, "head_dim": 12},
        image_token_index=IMAGE_TOKEN,
        spatial_merge_size=2,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )


def _mllama_config() -> hf.PreTrainedConfig:
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
        "max_num_tiles": 1,
        "supported_aspect_ratios": [[1, 1]],
        "intermediate_layers_indices": [0],
        "vision_output_dim": 48,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    return hf.MllamaConfig(
        text_config={**_TEXT, "rope_parameters": rope, "cross_attention_layers": [1]},
        vision_config=vision,
        image_token_index=IMAGE_TOKEN,
    )


FAMILIES: Final = {
    family.name: family
    for family in (
        Family(
            name="idefics",
            config=_idefics_config,
            images=_pixels(1, 3, 16, 16),
            has_placeholders=False,
        ),
        Family(name="idefics2", config=_idefics2_config, images=_pixels(1, 3, 16, 16)),
        Family(
            name="idefics3",
            config=_idefics3_like(hf.Idefics3Config),
            images=_pixels(1, 3, 16, 16),
        ),
        Family(
            name="smolvlm", config=_idefics3_like(hf.SmolVLMConfig), images=_pixels(1, 3, 16, 16)
        ),
        Family(name="llava", config=_llava_like(hf.LlavaConfig), images=_pixels(3, 16, 16)),
        Family(
            name="llava_next",
            config=_llava_like(hf.LlavaNextConfig, image_grid_pinpoints=[[16, 16]]),
            images=_sized_pixels(2, 3, 16, 16),
        ),
        Family(
            name="llava_onevision",
            config=_onevision_config,
            images=_sized_pixels(2, 3, 16, 16),
        ),
        Family(
            name="qwen2_vl",
            config=_qwen_config(
                hf.Qwen2VLConfig,
                {
                    "spatial_merge_size": 2,
                    "temporal_patch_size": 2,
                    "embed_dim": 24,
                    "hidden_size": HIDDEN,
                },
                [1, 1, 2],
            ),
            images=_qwen_pixels,
            token_types=("mm_token_type_ids",),
        ),
        Family(
            name="qwen2_5_vl",
            config=_qwen_config(
                hf.Qwen2_5_VLConfig,
                {**_QWEN_VISION, "window_size": 8, "fullatt_block_indexes": [1]},
                [1, 1, 2],
            ),
            images=_qwen_pixels,
            token_types=("mm_token_type_ids",),
        ),
        Family(
            name="qwen3_vl",
            config=_qwen_config(
                hf.Qwen3VLConfig,
                {**_QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
                [2, 1, 1],
            ),
            images=_qwen_pixels,
            token_types=("mm_token_type_ids",),
        ),
        Family(name="internvl", config=_internvl_config, images=_pixels(3, 16, 16)),
        Family(
            name="gemma3",
            config=_gemma3_config,
            images=_pixels(3, 16, 16),
            token_types=("token_type_ids",),
        ),
        Family(
            name="paligemma",
            config=_paligemma_config("gemma"),
            images=_pixels(3, 16, 16),
            token_types=("token_type_ids",),
        ),
        Family(
            name="paligemma2",
            config=_paligemma_config("gemma2"),
            attention="eager",
            images=_pixels(3, 16, 16),
            token_types=("token_type_ids",),
        ),
        Family(name="mistral3", config=_mistral3_config, images=_sized_pixels(3, 16, 16)),
        Family(name="mllama", config=_mllama_config, images=_mllama_pixels, has_placeholders=False),
    )
}


def tiny_model(name: str, *, seed: int = 0, attention: str | None = None) -> hf.PreTrainedModel:
    """A random model of a family in evaluation mode, frozen, equal for equal seeds."""
    family = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: hf.PreTrainedModel = hf.AutoModelForImageTextToText.from_config(
            family.config(), attn_implementation=attention or family.attention
        )
        _sharpen(model)
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def _sharpen(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            owner = name.split(".")[-2] if "." in name else ""
            if owner in _PROJECTIONS and parameter.ndim > 1:
                parameter.mul_(SCALE)
            elif name.endswith(("mm_input_projection_weight", "gate", "image_newline")):
                parameter.normal_(std=0.3)


def tiny_inputs(name: str, *, rows: int = 2, seed: int = 0, length: int = 7) -> dict[str, Tensor]:
    """Inputs with one image a row, of equal length: a few tokens, the image, then the text."""
    family = FAMILIES[name]
    generator = torch.Generator().manual_seed(seed)
    images = family.images(rows, generator)
    text = torch.randint(3, IMAGE_TOKEN, (rows, length), generator=generator)
    ids = text
    if family.has_placeholders:
        count = _num_image_tokens(name, images) // rows
        placeholders = torch.full((rows, count), IMAGE_TOKEN)
        ids = torch.cat([text[:, :2], placeholders, text[:, 2:]], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images}
    for key in family.token_types:
        inputs[key] = (ids == IMAGE_TOKEN).long()
    if name == "idefics":
        inputs["image_attention_mask"] = torch.ones((*ids.shape, 1), dtype=torch.long)
    if name == "mllama":
        inputs["cross_attention_mask"] = torch.ones((*ids.shape, 1, 1), dtype=torch.long)
    return inputs


_COUNTS: dict[str, int] = {}


def _num_image_tokens(name: str, images: dict[str, Tensor]) -> int:
    if name not in _COUNTS:
        one = FAMILIES[name].images(1, torch.Generator().manual_seed(0))
        with torch.no_grad():
            features = tiny_model(name).get_image_features(**one, return_dict=True).pooler_output
        parts = features if isinstance(features, list | tuple) else [features]
        _COUNTS[name] = sum(part.numel() // part.shape[-1] for part in parts)
    return _COUNTS[name] * int(len(images.get("image_grid_thw", images["pixel_values"])))


CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ ' ' + part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>Assistant:{% endif %}"
)
_SPECIAL: Final = (
    "<pad>",
    "<|im_start|>",
    "<|im_end|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
)
_CORPUS: Final = (
    "User: what shape is in the image? Assistant: circle triangle rectangle",
    "what color is the shape? red green blue black brown gray teal yellow",
    "is there a red shape? yes no does the image contain a triangle?",
)


def tiny_processor() -> hf.Idefics3Processor:
    """A processor for 16 x 16 images with four visual tokens and a byte-level BPE of its own."""
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=list(_SPECIAL),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    raw.train_from_iterator(_CORPUS, trainer)
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(_SPECIAL[3:]),
    )
    pixels = hf.Idefics3ImageProcessorPil(
        size={"longest_edge": 16}, max_image_size={"longest_edge": 16}, do_image_splitting=False
    )
    return hf.Idefics3Processor(pixels, tokenizer, image_seq_len=4, chat_template=CHAT_TEMPLATE)


def tiny_processed_model(processor: hf.ProcessorMixin, *, seed: int = 0) -> hf.PreTrainedModel:
    """A random Idefics3 whose vocabulary is the processor's."""
    vocabulary = len(processor.tokenizer)
    config = hf.Idefics3Config(
        text_config={
            "model_type": "llama",
            **_TEXT,
            "vocab_size": vocabulary,
            "max_position_embeddings": 1024,
            "eos_token_id": processor.tokenizer.eos_token_id,
        },
        vision_config=_VISION,
        image_token_id=processor.tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=processor.tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: hf.PreTrainedModel = hf.AutoModelForImageTextToText.from_config(config)
        _sharpen(model)
    return model


def tiny_backbone(*, seed: int = 0) -> Backbone:
    """A random Idefics3 with tokenizer, image processor and chat template, ready for prompts."""
    processor = tiny_processor()
    model = tiny_processed_model(processor, seed=seed)
    return backbone_from_parts(model, processor, name="tiny")


def tiny_examples(count: int, *, seed: int = 0) -> list[Example]:
    """Plain coloured squares with a question each; two questions share a picture."""
    colours = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for index in range(count):
        name = list(colours)[int(torch.randint(3, (1,), generator=generator))]
        if index % 2:
            image, name, image_id = (
                examples[-1].image,
                examples[-1].answers[0],
                examples[-1].image_id,
            )
        else:
            image, image_id = Image.new("RGB", (16, 16), colours[name]), f"image-{index}"
            image.putpixel((index % 16, index // 16 % 16), (index % 256, 0, 0))
        examples.append(
            Example(
                image=image,
                question="what color is the shape?" if index % 3 else "which colour is it?",
                answers=(name,),
                image_id=image_id,
                id=f"item-{index}",
            )
        )
    return examples
