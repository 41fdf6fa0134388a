"""Where a picture and a question lie in the space in which vectors are found again.

Knows features and keys; knows no index and no threshold policy beyond its calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.chat import as_plain_text
from app.method.backbone.clusters import k_means
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.randomness import generator_for

MAX_EXEMPLARS: Final = 16
_CALIBRATION_PERCENTILE: Final = 5
_MOST_CENTRE_ROWS: Final = 4096
_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskKey:
    """Where a task lies.

    Attributes:
        centroid: Spherical mean of the task's features.
        exemplars: Centres of its groups, at most 16, each of length 1.
        threshold: Similarity to the nearest key that all but 5 % of the task's items reach.
    """

    centroid: Float32[np.ndarray, " width"]
    exemplars: Float32[np.ndarray, "exemplars width"]
    threshold: float


def space_id(backbone: Backbone) -> str:
    """Names the space; embeddings of different spaces must never be compared."""
    return f"backbone-{backbone.description.fingerprint[:16]}-v{_VERSION}"


def _question_features(
    backbone: Backbone, questions: Sequence[str]
) -> Float32[Tensor, "questions width"]:
    table = cast("nn.Embedding", backbone.model.get_input_embeddings())
    weight = table.weight
    # What all tokens have in common says nothing about a question.
    centre = weight[:: max(1, len(weight) // _MOST_CENTRE_ROWS)].float().mean(0)
    rows = []
    for question in questions:
        text = as_plain_text(backbone.processor, question.strip())
        ids = backbone.tokenizer.encode(text, add_special_tokens=False)
        tokens = torch.tensor([ids], dtype=torch.long, device=backbone.device)
        rows.append(table(tokens)[0].float().mean(0) - centre if ids else torch.zeros_like(centre))
    return torch.stack(rows).cpu()


@torch.inference_mode()
def embed(
    backbone: Backbone,
    images: Sequence[Picture | None],
    questions: Sequence[str | None],
    *,
    features: FeatureCache | None = None,
) -> Float32[np.ndarray, "items width"]:
    """One row an item: image feature and question feature, each of length 1, side by side.

    The row is scaled to length 1 again. A missing half is zero, so with one half the similarity to
    a key of both can reach at most about 0.71.

    Args:
        backbone: Whose vision tower and token embeddings are used.
        images: A picture or None for each item.
        questions: A question or None for each item.
        features: Vision features computed before, to be reused.

    Raises:
        InvalidInputError: The lists differ in length, or an item has neither.
    """
    if len(images) != len(questions):
        raise InvalidInputError(
            f"Wanted as many images as questions, found {len(images)} and {len(questions)}"
        )
    pairs = zip(images, questions, strict=True)
    if any(image is None and not (text or "").strip() for image, text in pairs):
        raise InvalidInputError("Nothing to embed: wanted an image or a question, found neither")
    cache = features or FeatureCache(backbone)
    asked = [text or "" for text in questions]
    question_half = functional.normalize(_question_features(backbone, asked), dim=-1)
    image_half = functional.normalize(cache.summaries(images), dim=-1)
    rows = functional.normalize(torch.cat([image_half, question_half], dim=-1), dim=-1)
    return rows.numpy().astype(np.float32)


def _normalized(rows: Float32[np.ndarray, "... width"]) -> Float32[np.ndarray, "... width"]:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Float32[np.ndarray, "... width"] = (rows / np.maximum(norms, 1e-12)).astype(np.float32)
    return scaled


def similarity_to_key(
    rows: Float32[np.ndarray, "items width"], key: TaskKey
) -> Float32[np.ndarray, " items"]:
    """Cosine of each row with the nearest of the key's centroid and exemplars."""
    keys = np.concatenate([key.centroid[None], key.exemplars])
    best: Float32[np.ndarray, " items"] = (rows @ keys.T).max(1)
    return best


def build_task_key(
    rows: Float32[np.ndarray, "items width"],
    *,
    seed: int = 0,
    calibration: Float32[np.ndarray, "others width"] | None = None,
) -> TaskKey:
    """The key of the task that these items belong to.

    Args:
        rows: Embeddings of the query set, at least one.
        seed: Of the grouping into exemplars.
        calibration: Embeddings of items of the task that are not among `rows`; the threshold is
            read off them, which tells better what an unseen item reaches.

    Raises:
        InvalidInputError: There is no item.
    """
    if not len(rows):
        raise InvalidInputError("No key without items: wanted at least one, found none")
    count = min(MAX_EXEMPLARS, len(rows))
    centres = k_means(rows, count, generator=generator_for(seed, "exemplars"))
    key = TaskKey(centroid=_normalized(rows.mean(0)), exemplars=_normalized(centres), threshold=0.0)
    measured = rows if calibration is None or not len(calibration) else calibration
    threshold = calibrated_threshold(similarity_to_key(measured, key))
    return TaskKey(centroid=key.centroid, exemplars=key.exemplars, threshold=threshold)


def calibrated_threshold(similarities: Float32[np.ndarray, " items"]) -> float:
    """The similarity that all but 5 % of a task's items reach."""
    return float(np.percentile(similarities, _CALIBRATION_PERCENTILE))
