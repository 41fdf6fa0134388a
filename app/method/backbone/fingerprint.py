"""What a backbone is told apart by: digests of its parts and the fingerprint made of them.

Knows configurations, tokenizers and weight files; loads nothing.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from app.core.backbones import BackboneDescription

_WHOLE_FILE_BYTES: Final = 256 * 1024 * 1024
_SAMPLE_BYTES: Final = 1024 * 1024
_NUM_SAMPLES: Final = 64
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


def _content(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    yield f"{path.name}:{size}\n".encode()
    with path.open("rb") as file:
        if size <= _WHOLE_FILE_BYTES:
            yield file.read()
            return
        # Reading tens of gigabytes at every start buys nothing: the sizes, the header and evenly
        # spread samples tell any two trainings apart.
        for index in range(_NUM_SAMPLES):
            file.seek(index * (size - _SAMPLE_BYTES) // (_NUM_SAMPLES - 1))
            yield file.read(_SAMPLE_BYTES)


def digest_of_files(folder: Path) -> str:
    """A digest of the weight files in a folder, wholly read unless they are very large."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        for part in _content(path):
            digest.update(part)
    return digest.hexdigest()


def digest_of_parameters(model: PreTrainedModel) -> str:
    """A digest of samples of all weights in memory."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().flatten()[:: max(1, parameter.numel() // _NUM_SAMPLES)]
        digest.update(f"{name}:{tuple(parameter.shape)}\n".encode())
        digest.update(flat.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def describe(
    model: PreTrainedModel, processor: ProcessorMixin, *, name: str, revision: str
) -> BackboneDescription:
    """The identity and the sizes of a backbone.

    Args:
        model: The loaded model.
        processor: Its processor; tokens and pixels decide what a vector means.
        name: What people call it; no part of the fingerprint.
        revision: Identifies the weights.
    """
    config = model.config.get_text_config()
    architecture = type(model).__name__
    sizes = {
        "num_layers": int(config.num_hidden_layers),
        "hidden_size": int(config.hidden_size),
        "num_heads": int(config.num_attention_heads),
        "vocab_size": int(config.vocab_size),
    }
    digests = {
        "tokenizer": _tokenizer_digest(processor.tokenizer),
        "processor": _processor_digest(processor),
        "chat_template": _digest(getattr(processor, "chat_template", None)),
        "rope": _digest(getattr(config, "rope_parameters", None)),
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
