"""What `pocket-2` is made of: tokenizer, processor, configuration, untrained model.

Knows the Hugging Face classes; knows neither drawings nor how it is trained.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from tools.pocket.anatomy import (
    CHAT_TEMPLATE,
    END,
    IMAGE_TOKENS,
    MODEL,
    PAD,
    USER,
    fit_tokenizer,
    token_id,
)
from tools.pocket2.pictures.drawings import SIDE_PIXELS

VISION_SIZE: Final = 192
VISION_LAYERS: Final = 6
PATCH_PIXELS: Final = 8
# All patches of a picture become one visual token: 64 demonstrations stay under 1,000 tokens.
PIXEL_SHUFFLE: Final = SIDE_PIXELS // PATCH_PIXELS
TEXT_SIZE: Final = 256
TEXT_LAYERS: Final = 6
VOCABULARY: Final = 6144
MAX_TOKENS: Final = 4096
_EMBEDDING_DEVIATION: Final = 0.05
# Smaller ones leave attention blind to where a patch is for hundreds of steps.
_POSITION_DEVIATION: Final = 0.5


@dataclass(frozen=True)
class ControlIds:
    """The ids of the tokens that hold a conversation together.

    Attributes:
        pad: Fills up shorter rows.
        user: Starts the user's turn.
        model: Starts the model's turn.
        end: Ends the model's turn.
        image: Stands for a picture's one visual token.
        picture: All that the processor writes for a picture.
    """

    pad: int
    user: int
    model: int
    end: int
    image: int
    picture: tuple[int, ...]


def train_tokenizer(corpus: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer fitted to the corpus; any text encodes without loss."""
    return fit_tokenizer(corpus, vocabulary=VOCABULARY, max_tokens=MAX_TOKENS)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer that was saved."""
    read: Any = PreTrainedTokenizerFast.from_pretrained
    tokenizer: PreTrainedTokenizerFast = read(folder)
    return tokenizer


def control_ids(tokenizer: PreTrainedTokenizerFast) -> ControlIds:
    """The control tokens of this tokenizer."""
    fake, view, image = (token_id(tokenizer, token) for token in IMAGE_TOKENS)
    pad, user, model, end = (token_id(tokenizer, token) for token in (PAD, USER, MODEL, END))
    return ControlIds(pad, user, model, end, image, picture=(fake, view, image, fake))


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    """The processor: one view of 64x64 pixels an image, no splitting, one placeholder."""
    images = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": SIDE_PIXELS},
        max_image_size={"longest_edge": SIDE_PIXELS},
    )
    return Idefics3Processor(images, tokenizer, image_seq_len=1, chat_template=CHAT_TEMPLATE)


def configuration(ids: ControlIds, *, vocabulary: int) -> Idefics3Config:
    """The configuration of the model."""
    configure: Any = Idefics3Config
    config: Idefics3Config = configure(
        vision_config={
            "hidden_size": VISION_SIZE,
            "intermediate_size": 4 * VISION_SIZE,
            "num_hidden_layers": VISION_LAYERS,
            "num_attention_heads": 4,
            "image_size": SIDE_PIXELS,
            "patch_size": PATCH_PIXELS,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": vocabulary,
            "hidden_size": TEXT_SIZE,
            "intermediate_size": 640,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": MAX_TOKENS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
            "pad_token_id": ids.pad,
            "bos_token_id": None,
            "eos_token_id": ids.end,
        },
        scale_factor=PIXEL_SHUFFLE,
        image_token_id=ids.image,
        pad_token_id=ids.pad,
        bos_token_id=None,
        eos_token_id=ids.end,
        tie_word_embeddings=True,
    )
    return config


def make_model(tokenizer: PreTrainedTokenizerFast) -> Idefics3ForConditionalGeneration:
    """An untrained model; its weights come from torch's current generator."""
    ids = control_ids(tokenizer)
    model = Idefics3ForConditionalGeneration(configuration(ids, vocabulary=len(tokenizer)))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(model.model.text_model.embed_tokens.weight, std=_EMBEDDING_DEVIATION)
    places = model.model.vision_model.embeddings.position_embedding
    nn.init.normal_(places.weight, std=_POSITION_DEVIATION)
    _attract_alike(model)
    model.generation_config.eos_token_id = ids.end
    model.generation_config.pad_token_id = ids.pad
    model.generation_config.bos_token_id = None
    return model


def _attract_alike(model: Idefics3ForConditionalGeneration) -> None:
    """Half of the heads start with equal queries and keys, and small outputs.

    Then a token attends to what resembles it from the first step on. Source: Trockman and Kolter,
    Mimetic Initialization of Self-Attention Layers, 2023.
    """
    for layer in model.model.text_model.layers:
        attention = layer.self_attn
        half = attention.q_proj.weight.shape[0] // 2
        attention.k_proj.weight.data[:half] = attention.q_proj.weight.data[:half]
        attention.o_proj.weight.data *= 0.5
        layer.mlp.down_proj.weight.data *= 0.5
