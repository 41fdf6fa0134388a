"""LLaVA's families, and InternVL, which looks at pictures in tiles like they do."""

from typing import Any, Final

import transformers as hf

from tests.fakes.checkpoints.parts import (
    PATCH,
    SIDE,
    Parts,
    decoder,
    pixels,
    template,
    tower,
    without_videos,
)
from tests.fakes.checkpoints.vocabularies import llama2, qwen2

_TILES: Final = [
    [SIDE, 2 * SIDE],
    [2 * SIDE, SIDE],
    [2 * SIDE, 2 * SIDE],
    [3 * SIDE, SIDE],
    [SIDE, 3 * SIDE],
]
_SQUARE: Final = {"height": SIDE, "width": SIDE}


def _clip_processor(kind: Any, image_processor: str, name: str, **options: Any) -> Any:
    size = {"size": {"shortest_edge": SIDE}, "crop_size": _SQUARE}
    return kind(
        pixels(image_processor, **size, **options),
        llama2("<image>", "<pad>", pad_token="<pad>"),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=template(name),
        image_token="<image>",
        num_additional_image_tokens=1,
    )


def llava() -> Parts:
    processor = _clip_processor(hf.LlavaProcessor, "CLIPImageProcessor", "llava")
    make: Any = hf.LlavaConfig
    config = make(
        text_config={"model_type": "llama", **decoder(processor.tokenizer)},
        vision_config={"model_type": "clip_vision_model", **tower()},
        image_token_index=processor.image_token_id,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return Parts(config=config, processor=processor)


def llava_next() -> Parts:
    processor = _clip_processor(
        hf.LlavaNextProcessor, "LlavaNextImageProcessor", "llava_next", image_grid_pinpoints=_TILES
    )
    text = decoder(processor.tokenizer, sliding_window=None)
    make: Any = hf.LlavaNextConfig
    config = make(
        text_config={"model_type": "mistral", **text},
        vision_config={"model_type": "clip_vision_model", **tower()},
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=_TILES,
    )
    return Parts(config=config, processor=processor)


def llava_onevision() -> Parts:
    tiles = [[SIDE, SIDE], *_TILES]
    processor = without_videos("LlavaOnevisionProcessor")(
        pixels("LlavaOnevisionImageProcessor", size=_SQUARE, image_grid_pinpoints=tiles),
        qwen2("<image>", "<video>"),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=template("llava_onevision"),
    )
    make: Any = hf.LlavaOnevisionConfig
    config = make(
        text_config={"model_type": "qwen2", **decoder(processor.tokenizer)},
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **tower()},
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=tiles,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    return Parts(config=config, processor=processor)


def internvl() -> Parts:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    marks = ("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
    tokenizer = qwen2(*marks, extra_special_tokens=names)
    processor = without_videos("InternVLProcessor")(
        pixels(
            "GotOcr2ImageProcessor",
            size=_SQUARE,
            crop_to_patches=True,
            min_patches=1,
            max_patches=4,
            do_convert_rgb=True,
        ),
        tokenizer,
        image_seq_length=4,
        chat_template=template("internvl"),
    )
    make: Any = hf.InternVLConfig
    config = make(
        text_config={"model_type": "qwen2", **decoder(tokenizer)},
        vision_config=tower(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH]),
        image_token_id=processor.image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return Parts(config=config, processor=processor)
