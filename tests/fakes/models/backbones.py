"""A tiny random backbone with a real processor, and examples for it.

The same kind as the bundled one: Idefics3 classes, four visual tokens, a byte-level BPE of its own.
"""

from typing import Any, Final

import tokenizers
import torch
import transformers as hf
from PIL import Image

from app.core.pictures import Picture
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone, backbone_from_parts
from app.method.steering.sites import find_sites
from tests.fakes.models.families import row_of, sharpen, tiny_inputs, tiny_model
from tests.fakes.models.family_configs import FAMILIES
from tests.fakes.models.family_sizes import HIDDEN, LAYERS, TEXT, VISION

__all__ = [
    "FAMILIES",
    "HIDDEN",
    "LAYERS",
    "lose_a_hook",
    "row_of",
    "tiny_backbone",
    "tiny_examples",
    "tiny_inputs",
    "tiny_model",
    "tiny_processed_model",
    "tiny_processor",
]


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
    wrap: Any = hf.PreTrainedTokenizerFast
    tokenizer = wrap(
        tokenizer_object=raw,
        pad_token=_SPECIAL[0],
        eos_token=_SPECIAL[2],
        additional_special_tokens=list(_SPECIAL[3:]),
    )
    pixels = hf.Idefics3ImageProcessorPil(
        size={"longest_edge": 16}, max_image_size={"longest_edge": 16}, do_image_splitting=False
    )
    return hf.Idefics3Processor(pixels, tokenizer, image_seq_len=4, chat_template=CHAT_TEMPLATE)


def tiny_processed_model(
    processor: hf.ProcessorMixin, *, seed: int = 0, text: dict[str, Any] | None = None
) -> hf.PreTrainedModel:
    """A random Idefics3 whose vocabulary is the processor's, with a Llama or what `text` says."""
    vocabulary = len(processor.tokenizer)
    config = hf.Idefics3Config(
        text_config={
            "model_type": "llama",
            **TEXT,
            "vocab_size": vocabulary,
            "max_position_embeddings": 1024,
            "eos_token_id": processor.tokenizer.eos_token_id,
            **(text or {}),
        },
        vision_config=VISION,
        image_token_id=processor.tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        make: Any = hf.AutoModelForImageTextToText.from_config
        model: hf.PreTrainedModel = make(config)
        sharpen(model)
    return model


def tiny_backbone(*, seed: int = 0) -> Backbone:
    """A random Idefics3 with tokenizer, image processor and chat template, ready for prompts."""
    processor = tiny_processor()
    model = tiny_processed_model(processor, seed=seed)
    return backbone_from_parts(model, processor, name="tiny")


def lose_a_hook(backbone: Backbone) -> None:
    """Lays the last site bare, behind the back of whoever shifts it."""
    find_sites(backbone.model)[-1].mlp._forward_hooks.clear()


def tiny_examples(count: int, *, seed: int = 0) -> list[Example]:
    """Plain coloured squares with a question each; two questions share a picture."""
    colours = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
    generator = torch.Generator().manual_seed(seed)
    examples: list[Example] = []
    for index in range(count):
        name = list(colours)[int(torch.randint(3, (1,), generator=generator))]
        if index % 2:
            image, name, image_id = (
                examples[-1].image,
                examples[-1].answers[0],
                examples[-1].image_id,
            )
        else:
            pixels, image_id = Image.new("RGB", (16, 16), colours[name]), f"image-{index}"
            pixels.putpixel((index % 16, index // 16 % 16), (index % 256, 0, 0))
            image = Picture.of(pixels)
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
