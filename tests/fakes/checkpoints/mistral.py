"""Mistral's vision-language families, and Llama 3.2 Vision."""

from typing import Any

import transformers as hf

from app.method.backbone.checkpoint.processors import PixtralProcessor
from tests.fakes.checkpoints.parts import PATCH, SIDE, Parts, decoder, pixels, template, tower
from tests.fakes.checkpoints.vocabularies import byte_pairs, wrapped

_TEKKEN = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
)


def _processor(name: str, *, longest: int, **options: Any) -> Any:
    tokenizer = wrapped(
        byte_pairs(first=_TEKKEN),
        *_TEKKEN,
        bos="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    patch = {"height": PATCH, "width": PATCH}
    return PixtralProcessor(
        pixels("PixtralImageProcessor", size={"longest_edge": longest}, patch_size=patch),
        tokenizer,
        PATCH,
        chat_template=template(name),
        **options,
    )


def _text(processor: Any) -> dict[str, Any]:
    text = decoder(processor.tokenizer, head_dim=16, sliding_window=None)
    return {"model_type": "mistral", **text}


def mistral3() -> Parts:
    processor = _processor("mistral3", longest=2 * SIDE, spatial_merge_size=2)
    make: Any = hf.Mistral3Config
    config = make(
        text_config=_text(processor),
        vision_config={"model_type": "pixtral", **tower(image_size=2 * SIDE, head_dim=16)},
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    return Parts(config=config, processor=processor)


def pixtral() -> Parts:
    """A `llava` model with Pixtral's tower and processor."""
    processor = _processor("pixtral", longest=6 * PATCH)
    make: Any = hf.LlavaConfig
    config = make(
        text_config=_text(processor),
        vision_config={"model_type": "pixtral", **tower(image_size=6 * PATCH, head_dim=16)},
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return Parts(config=config, processor=processor)


def mllama() -> Parts:
    """Pictures are joined by cross-attention; their token lies behind the vocabulary."""
    pad = "<|finetune_right_pad_id|>"
    tokenizer = wrapped(
        byte_pairs(),
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
        pad,
        "<|image|>",
        bos="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token=pad,
    )
    square = {"height": SIDE, "width": SIDE}
    make_processor: Any = hf.MllamaProcessor
    processor = make_processor(
        pixels("MllamaImageProcessor", size=square, max_image_tiles=4),
        tokenizer,
        chat_template=template("mllama"),
    )
    token = tokenizer.convert_tokens_to_ids("<|image|>")
    text = decoder(
        tokenizer,
        vocab_size=token,
        num_hidden_layers=4,
        cross_attention_layers=[1, 3],
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        "max_num_tiles": 4,
        "intermediate_layers_indices": [0, 1],
        "vision_output_dim": 96,
        "supported_aspect_ratios": [
            [wide, high] for wide in range(1, 5) for high in range(1, 5) if wide * high <= 4
        ],
    }
    make: Any = hf.MllamaConfig
    config = make(text_config=text, vision_config=vision, image_token_index=token)
    return Parts(config=config, processor=processor)
