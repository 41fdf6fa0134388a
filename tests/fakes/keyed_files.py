"""Vector files that are found by what they carry."""

import numpy as np

from app.core.backbones import BackboneDescription
from app.core.vectors.card import KeyCard, VectorCard
from tests.fakes.servers.worker import embedding_of
from tests.fakes.vectors import make_vector_file


def make_keyed_file(backbone: BackboneDescription, *, seed: int, space: str) -> bytes:
    """A vector file that is found by the embedding of its seed as a question."""
    rows = np.asarray([embedding_of(None, f"{seed}")], dtype=np.float32)
    card = VectorCard(status="ready", key=KeyCard.of(rows, space=space, threshold=0.9))
    return make_vector_file(seed, backbone=backbone, metadata=card.to_metadata())
