"""What a backbone is told apart by: digests of its parts and the fingerprint made of them."""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from app.core.backbones import BackboneDescription

# What a configuration says of files, versions and how it is computed, not of what comes out.
_CONFIG_NOISE: Final = frozenset(
    {
        "architectures",
        "dtype",
        "initializer_range",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
_PROCESSOR_NOISE: Final = frozenset(
    {
        "image_processor_type",
        "processor_class",
        "_processor_class",
        "transformers_version",
        "device",
    }
)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _digest({"vocab": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map})
    # Padding and truncation are set anew by every call, so they are no part of the identity.
    state = json.loads(backend.to_str())
    return _digest({key: state[key] for key in state if key not in {"padding", "truncation"}})


def _processor_digest(processor: ProcessorMixin) -> str:
    settings = processor.image_processor.to_dict()
    return _digest({key: settings[key] for key in settings if key not in _PROCESSOR_NOISE})


def _model_digest(model: PreTrainedModel) -> str:
    """Every setting that is not the default and can change an answer."""
    return _digest(_without_noise(model.config.to_diff_dict()))


def _without_noise(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {
        key: _without_noise(item)
        for key, item in value.items()
        if key not in _CONFIG_NOISE and not str(key).startswith("_")
    }


def _ends_digest(model: PreTrainedModel) -> str:
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return _digest(sorted(ends) if isinstance(ends, list | tuple) else [ends])


def digest_of_parameters(model: PreTrainedModel) -> str:
    """A digest of all weights in memory, as they are in float32."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}:{tuple(parameter.shape)}\n".encode())
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sizes_of(config: PreTrainedConfig) -> dict[str, int]:
    """The sizes of a backbone's text decoder.

    Raises:
        AttributeError: It has no such size.
        RuntimeError: Its layers differ in one.
    """
    text = config.get_text_config()
    return {
        "num_layers": int(text.num_hidden_layers),
        "hidden_size": int(text.hidden_size),
        "num_heads": int(text.num_attention_heads),
        "vocab_size": int(text.vocab_size),
    }


def describe(
    model: PreTrainedModel, processor: ProcessorMixin, *, name: str, revision: str
) -> BackboneDescription:
    """The identity and the sizes of a backbone.

    The name is no part of the fingerprint; the revision identifies the weights.
    """
    config = model.config.get_text_config()
    architecture = type(model).__name__
    sizes = sizes_of(model.config)
    digests = {
        "tokenizer": _tokenizer_digest(processor.tokenizer),
        "processor": _processor_digest(processor),
        "chat_template": _digest(getattr(processor, "chat_template", None)),
        "settings": _model_digest(model),
        "ends": _ends_digest(model),
        "revision": revision,
    }
    return BackboneDescription(
        fingerprint=_digest({"architecture": architecture, **sizes, **digests}),
        name=name,
        architecture=architecture,
        max_position_embeddings=int(getattr(config, "max_position_embeddings", 0) or 0),
        digests=digests,
        **sizes,
    )
