"""Gemma 3 and the PaliGemmas."""

from typing import Any

import transformers as hf

from tests.fakes.checkpoints.parts import (
    PATCH,
    SIDE,
    WIDTH,
    Parts,
    decoder,
    pixels,
    template,
    tower,
)
from tests.fakes.checkpoints.vocabularies import gemma

_SQUARE = {"height": SIDE, "width": SIDE}


def gemma3() -> Parts:
    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = gemma("<start_of_turn>", "<end_of_turn>", extra_special_tokens=names)
    make_processor: Any = hf.Gemma3Processor
    processor = make_processor(
        pixels("Gemma3ImageProcessor", size=_SQUARE, image_seq_length=4),
        tokenizer,
        chat_template=template("gemma3"),
        image_seq_length=4,
    )
    text = decoder(
        tokenizer,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=32,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )
    ids = tokenizer.convert_tokens_to_ids
    make: Any = hf.Gemma3Config
    config = make(
        text_config=text,
        vision_config=tower(),
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
        tie_word_embeddings=False,
    )
    return Parts(
        config=config, processor=processor, eos_token_ids=(ids("<eos>"), ids("<end_of_turn>"))
    )


def paligemma() -> Parts:
    """Published without a chat template; what is asked is read in both directions."""
    return _paligemma("gemma")


def paligemma2() -> Parts:
    return _paligemma("gemma2", query_pre_attn_scalar=16, sliding_window=4096)


def _paligemma(kind: str, **options: int) -> Parts:
    half = [0.5] * 3
    picture = pixels("SiglipImageProcessor", size=_SQUARE, image_mean=half, image_std=half)
    picture.image_seq_length = (SIDE // PATCH) ** 2
    make_processor: Any = hf.PaliGemmaProcessor
    processor = make_processor(picture, gemma("<image>"))
    text = decoder(processor.tokenizer, head_dim=16, **options)
    vision = tower(projection_dim=WIDTH, vision_use_head=False)
    make: Any = hf.PaliGemmaConfig
    config = make(
        text_config={"model_type": kind, **text},
        vision_config={"model_type": "siglip_vision_model", **vision},
        projection_dim=WIDTH,
        image_token_index=processor.image_token_id,
        tie_word_embeddings=False,
    )
    return Parts(config=config, processor=processor)
