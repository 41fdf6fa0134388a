"""Idefics' generations, and SmolVLM after them."""

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
    without_videos,
)
from tests.fakes.checkpoints.vocabularies import byte_pairs, gpt2, llama2, wrapped


def idefics() -> Parts:
    """The first one: pictures are joined by cross-attention, and it has no chat template."""
    tokenizer = llama2(pad_token="<unk>", padding_side="left")
    written = len(tokenizer)
    extra = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    make_processor: Any = hf.IdeficsProcessor
    processor = make_processor(
        pixels("IdeficsImageProcessor", image_size=SIDE), tokenizer, image_size=SIDE
    )
    text = decoder(tokenizer, vocab_size=written, num_hidden_layers=4)
    del text["num_key_value_heads"]
    vision = tower(embed_dim=32)
    del vision["hidden_size"]
    resampler = {
        "use_resampler": True,
        "resampler_n_latents": 8,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 16,
    }
    make: Any = hf.IdeficsConfig
    config = make(
        **text,
        additional_vocab_size=len(extra),
        alpha_initializer="ones",
        cross_layer_interval=2,
        use_resampler=True,
        perceiver_config=resampler,
        vision_config=vision,
    )
    return Parts(config=config, processor=processor)


def idefics2() -> Parts:
    make_processor: Any = hf.Idefics2Processor
    processor = make_processor(
        pixels(
            "Idefics2ImageProcessor",
            size={"shortest_edge": 42, "longest_edge": 98},
            do_image_splitting=True,
        ),
        llama2(pad_token="<unk>"),
        image_seq_len=6,
        chat_template=template("idefics2"),
    )
    resampler = {
        "hidden_size": WIDTH,
        "resampler_n_latents": 6,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "num_key_value_heads": 1,
        "resampler_head_dim": 16,
    }
    text = decoder(processor.tokenizer, sliding_window=4096)
    make: Any = hf.Idefics2Config
    config = make(
        text_config={"model_type": "mistral", **text},
        vision_config=tower(image_size=7 * PATCH),
        perceiver_config=resampler,
        image_token_id=processor.image_token_id,
    )
    return Parts(config=config, processor=processor)


def idefics3() -> Parts:
    pad = "<|reserved_special_token_0|>"
    tokenizer = wrapped(
        byte_pairs(),
        "<|begin_of_text|>",
        "<|end_of_text|>",
        pad,
        "<fake_token_around_image>",
        "<image>",
        "<end_of_utterance>",
        bos="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token=pad,
    )
    make_processor: Any = hf.Idefics3Processor
    processor = make_processor(
        pixels(
            "Idefics3ImageProcessor",
            size={"longest_edge": 2 * SIDE},
            max_image_size={"longest_edge": SIDE},
            do_image_splitting=True,
        ),
        tokenizer,
        image_seq_len=4,
        chat_template=template("idefics3"),
    )
    make: Any = hf.Idefics3Config
    config = make(
        text_config={"model_type": "llama", **decoder(tokenizer)},
        vision_config=tower(),
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return Parts(config=config, processor=processor)


def smol_tokenizer() -> Any:
    """SmolVLM's tokenizer, which names the place of every tile."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    return gpt2(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<global-img>",
        *places,
        "<fake_token_around_image>",
        "<image>",
        "<end_of_utterance>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
    )


def smolvlm() -> Parts:
    tokenizer = smol_tokenizer()
    processor = without_videos("SmolVLMProcessor")(
        pixels(
            "SmolVLMImageProcessor",
            size={"longest_edge": 3 * SIDE},
            max_image_size={"longest_edge": SIDE},
            do_image_splitting=True,
        ),
        tokenizer,
        None,
        image_seq_len=4,
        chat_template=template("smolvlm"),
    )
    make: Any = hf.SmolVLMConfig
    config = make(
        text_config={"model_type": "llama", **decoder(tokenizer)},
        vision_config=tower(),
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return Parts(config=config, processor=processor)
