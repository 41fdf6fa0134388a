"""Tokenizers of the kinds that families have, learnt from a few sentences.

Small vocabularies, but with the families' own normalisation, byte handling and control tokens.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import transformers as hf
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

Vocabulary: TypeAlias = tuple[dict[str, int], list[tuple[str, str]]]

CONTEXT: Final = 8192
_SIZE: Final = 560
_SENTENCES: Final = (
    "what is shown in this picture? a circle, a triangle, a square or a rectangle",
    "which colour does it have? red, green, blue, black, grey, brown, yellow, teal",
    "is it a ring? yes or no. how many are there? zero one two three four five six seven",
    "user assistant system model question answer: 0123456789, please say it in one word",
    "a small part of the workshop lies beside another one; here are some crops of the image",
)


def control(*tokens: str) -> list[AddedToken]:
    """Tokens that no text can write."""
    return [AddedToken(token, normalized=False, special=True) for token in tokens]


def byte_pairs(*, first: Sequence[str] = (), digits: bool = False) -> Vocabulary:
    """Pairs of bytes, as GPT-2, Qwen, Llama 3 and Mistral's tekken have them."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = _bytes(digits=digits)
    trainer = trainers.BpeTrainer(
        vocab_size=_SIZE,
        special_tokens=list(first),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(_SENTENCES, trainer)
    return _parts(raw)


def pieces(*first: str) -> Vocabulary:
    """Pieces with ▁ for a space and bytes for what is unknown, as Llama 2 and Gemma have them."""
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.pre_tokenizer = pre_tokenizers.Split(pattern="▁", behavior="merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=_SIZE,
        special_tokens=[*first, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    raw.train_from_iterator([f" {sentence}" for sentence in _SENTENCES], trainer)
    return _parts(raw)


def _bytes(*, digits: bool) -> Any:
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if not digits:
        return whole
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])


def _parts(raw: Tokenizer) -> Vocabulary:
    model = json.loads(raw.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def qwen2(*tokens: str, **options: Any) -> Any:
    """Qwen's tokenizer, with further control tokens."""
    vocab, merges = byte_pairs()
    make: Any = hf.Qwen2Tokenizer
    tokenizer = make(
        vocab=vocab,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        model_max_length=CONTEXT,
        **options,
    )
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *tokens)
    tokenizer.add_tokens(control(*names), special_tokens=True)
    return tokenizer


def llama2(*tokens: str, **options: Any) -> Any:
    """Llama 2's tokenizer, with further control tokens."""
    vocab, merges = pieces("<unk>", "<s>", "</s>")
    make: Any = hf.LlamaTokenizer
    tokenizer = make(
        vocab=vocab, merges=merges, add_bos_token=True, model_max_length=CONTEXT, **options
    )
    tokenizer.add_tokens(control(*tokens), special_tokens=True)
    return tokenizer


def gemma(*tokens: str, **options: Any) -> Any:
    """Gemma's tokenizer, in which runs of line breaks, and of spaces, are tokens of their own."""
    vocab, merges = pieces("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    make: Any = hf.GemmaTokenizer
    tokenizer = make(
        vocab=vocab, merges=merges, add_bos_token=True, model_max_length=CONTEXT, **options
    )
    runs = [*("\n" * count for count in range(1, 32)), *("▁" * count for count in range(2, 32))]
    tokenizer.add_tokens([AddedToken(run, normalized=False, special=False) for run in runs])
    tokenizer.add_tokens(control(*tokens), special_tokens=True)
    return tokenizer


def wrapped(
    vocabulary: Vocabulary,
    *tokens: str,
    bos: str,
    digits: bool = False,
    **options: Any,
) -> Any:
    """Pairs of bytes in transformers' general class, which writes `bos` before every text."""
    vocab, merges = vocabulary
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    raw.pre_tokenizer = _bytes(digits=digits)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(control(*tokens))
    raw.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, raw.token_to_id(bos))],
    )
    make: Any = hf.PreTrainedTokenizerFast
    return make(tokenizer_object=raw, bos_token=bos, model_max_length=CONTEXT, **options)


def gpt2(*tokens: str, **options: Any) -> Any:
    """GPT-2's tokenizer with digits one by one, with further control tokens."""
    vocab, merges = byte_pairs(digits=True)
    make: Any = hf.GPT2Tokenizer
    tokenizer = make(vocab=vocab, merges=merges, model_max_length=CONTEXT, **options)
    tokenizer.add_tokens(control(*tokens), special_tokens=True)
    return tokenizer
