"""How near items lie to one another: which demonstrations are nearest, which queries differ.

Vectors are found by other rows: see `app.method.keys`.
"""

from collections.abc import Sequence
from typing import Final, cast

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.chat import as_plain_text
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone

_MOST_CENTRE_ROWS: Final = 4096


def _question_features(
    backbone: Backbone, questions: Sequence[str]
) -> Float32[Tensor, "questions width"]:
    # Not through the layer: some families multiply what it gives out, the centre would stay behind.
    weight = cast("nn.Embedding", backbone.model.get_input_embeddings()).weight
    # What all tokens have in common says nothing about a question.
    centre = weight[:: max(1, len(weight) // _MOST_CENTRE_ROWS)].float().mean(0)
    rows = []
    for question in questions:
        text = as_plain_text(backbone.processor, question)
        ids = backbone.tokenizer.encode(text, add_special_tokens=False)
        rows.append(weight[ids].float().mean(0) - centre if ids else torch.zeros_like(centre))
    return torch.stack(rows).cpu()


def texts_beside(images: Sequence[Picture | None], questions: Sequence[str | None]) -> list[str]:
    """The questions without the space around them, empty where there is none.

    Raises:
        InvalidInputError: The lists differ in length, or an item has neither.
    """
    if len(images) != len(questions):
        raise InvalidInputError(
            f"Wanted as many images as questions, found {len(images)} and {len(questions)}"
        )
    texts = [(text or "").strip() for text in questions]
    if any(image is None and not text for image, text in zip(images, texts, strict=True)):
        raise InvalidInputError("Nothing to embed: wanted an image or a question, found neither")
    return texts


@torch.inference_mode()
def embed(
    features: FeatureCache,
    images: Sequence[Picture | None],
    questions: Sequence[str | None],
) -> Float32[np.ndarray, "items width"]:
    """One row an item: image feature and question feature, each of length 1, side by side.

    The row is scaled to length 1 again. A missing half is zero, so with one half the similarity to
    a key of both can reach at most about 0.71.

    Raises:
        InvalidInputError: The lists differ in length, or an item has neither.
    """
    texts = texts_beside(images, questions)
    question_half = functional.normalize(_question_features(features.backbone, texts), dim=-1)
    image_half = functional.normalize(features.summaries(images), dim=-1)
    rows = functional.normalize(torch.cat([image_half, question_half], dim=-1), dim=-1)
    return rows.numpy().astype(np.float32)
