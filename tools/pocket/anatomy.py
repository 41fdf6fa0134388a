"""What the pocket LVLM is made of: tokenizer, processor, configuration, untrained model.

Knows the Hugging Face classes; knows neither the world nor how it is trained.
"""

from collections.abc import Iterable
from typing import Any, Final, cast

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from tools.pocket.world import SIDE_PIXELS

PATCH_PIXELS: Final = 16
PIXEL_SHUFFLE: Final = 2
TOKENS_PER_IMAGE: Final = (SIDE_PIXELS // PATCH_PIXELS // PIXEL_SHUFFLE) ** 2
VISION_SIZE: Final = 96
TEXT_SIZE: Final = 128
VOCABULARY: Final = 1024
MAX_TOKENS: Final = 2048
_TEXT_DEVIATION: Final = 0.05
_POSITION_DEVIATION: Final = 0.5

PAD, USER, MODEL, SYSTEM, END = (
    "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<end_of_utterance>",
)  # fmt: skip
IMAGE_TOKENS: Final = ("<fake_token_around_image>", "<global-img>", "<image>")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}<end_of_utterance>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(corpus: Iterable[str]) -> PreTrainedTokenizerFast:
    """The pocket's tokenizer, fitted to the corpus."""
    return fit_tokenizer(corpus, vocabulary=VOCABULARY, max_tokens=MAX_TOKENS)


def fit_tokenizer(
    corpus: Iterable[str], *, vocabulary: int, max_tokens: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer fitted to the corpus; any text encodes without loss.

    Args:
        corpus: Texts.
        vocabulary: At most this many entries, control tokens included.
        max_tokens: The longest prompt of the model it is for.
    """
    raw = tokenizers.Tokenizer(models.BPE())
    # A word is the same token at the start of an answer and inside a question: comparing a word
    # with an image was learnt only once the two shared an embedding.
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    raw.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, USER, MODEL, SYSTEM, END, *IMAGE_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(corpus, trainer)
    make: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = make(
        tokenizer_object=raw,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, MODEL, SYSTEM, *IMAGE_TOKENS],
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )
    return tokenizer


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of one token of the vocabulary."""
    return int(cast("int", tokenizer.convert_tokens_to_ids(token)))


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    """The processor: one 64x64 view an image, no splitting, four placeholders."""
    images = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": SIDE_PIXELS},
        max_image_size={"longest_edge": SIDE_PIXELS},
    )
    return Idefics3Processor(
        images, tokenizer, image_seq_len=TOKENS_PER_IMAGE, chat_template=CHAT_TEMPLATE
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Idefics3ForConditionalGeneration:
    """An untrained pocket LVLM; its weights come from torch's current generator."""
    end, pad = token_id(tokenizer, END), token_id(tokenizer, PAD)
    configure: Any = Idefics3Config
    config = configure(
        vision_config={
            "hidden_size": VISION_SIZE,
            "intermediate_size": 4 * VISION_SIZE,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIDE_PIXELS,
            "patch_size": PATCH_PIXELS,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": TEXT_SIZE,
            "intermediate_size": 3 * TEXT_SIZE,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": MAX_TOKENS,
            "pad_token_id": pad,
            "bos_token_id": None,
            "eos_token_id": end,
        },
        scale_factor=PIXEL_SHUFFLE,
        image_token_id=token_id(tokenizer, "<image>"),
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=end,
        tie_word_embeddings=True,
    )
    model = Idefics3ForConditionalGeneration(config)
    _initialise(model.model.vision_model, deviation=None)
    _initialise(model.model.text_model, deviation=_TEXT_DEVIATION)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = pad
    model.generation_config.bos_token_id = None
    return model


def _initialise(tower: nn.Module, *, deviation: float | None) -> None:
    """Draws the weights wider than the library does, whose 0.02 suits widths of a thousand.

    At a width of a hundred it leaves attention flat, and hundreds of steps go by before anything
    is learnt. None takes one over the square root of the inputs.
    """
    for module in tower.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=deviation or module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=deviation or _POSITION_DEVIATION)
