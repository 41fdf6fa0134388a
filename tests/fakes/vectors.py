"""Small descriptions and vector files, and the means to forge a hostile one."""

import json
from collections.abc import Mapping

import numpy as np
import pytest

from app.core.backbones import BackboneDescription
from app.core.errors import InvalidVectorFileError
from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.core.vectors.tensors import VectorTensors

LAYERS = 3
HIDDEN = 8
FINGERPRINT = "ab" * 32
METADATA = {"method": "m2iv", "backbone": FINGERPRINT}


def make_description(
    fingerprint: str = FINGERPRINT, *, num_layers: int = LAYERS, hidden_size: int = HIDDEN
) -> BackboneDescription:
    return BackboneDescription(
        fingerprint=fingerprint,
        name="tiny",
        architecture="TinyForConditionalGeneration",
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=2,
        vocab_size=64,
        max_position_embeddings=128,
        digests={"tokenizer": "cd" * 32},
    )


def make_tensors(
    seed: int = 0, *, num_layers: int = LAYERS, hidden_size: int = HIDDEN
) -> VectorTensors:
    rng = np.random.default_rng(seed)
    return VectorTensors(
        attention_vectors=rng.standard_normal((num_layers, hidden_size), dtype=np.float32),
        mlp_vectors=rng.standard_normal((num_layers, hidden_size), dtype=np.float32),
        attention_weights=rng.standard_normal(num_layers, dtype=np.float32),
        mlp_weights=rng.standard_normal(num_layers, dtype=np.float32),
    )


def make_vector_file(
    seed: int = 0,
    *,
    backbone: BackboneDescription | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    backbone = backbone or make_description()
    tensors = make_tensors(seed, num_layers=backbone.num_layers, hidden_size=backbone.hidden_size)
    known = {"method": "m2iv", "backbone": backbone.fingerprint, "seed": str(seed)}
    return encode_vector_file(tensors, metadata={**known, **(metadata or {})})


def split_file(data: bytes) -> tuple[dict[str, object], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def forge_file(header: Mapping[str, object] | str | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(8, "little") + raw + body


def refused(data: bytes, **sizes: int) -> str:
    """Why these bytes are no vector file."""
    with pytest.raises(InvalidVectorFileError) as caught:
        decode_vector_file(data, **sizes)
    return caught.value.message
