"""Pictures and questions as rows in the space in which vectors are found again."""

from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float32, Float64
from PIL import Image
from torch import nn

from app.core.pictures import Picture
from app.method.backbone.embedding import texts_beside
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.keys.appearance import appearance, contours
from app.method.keys.background import background_families
from app.method.keys.whitening import Whitening, fit_whitening, unit_rows
from app.method.keys.wording import WIDTH, wording
from app.method.steps import BackgroundSteps, OffDevice, finish

PixelFeatures: TypeAlias = list[Float64[np.ndarray, "pictures _"]]

VERSION: Final = 3
# Beside what the vision tower makes of a picture.
_PIXEL_FEATURES: Final = (appearance, contours)
# What a backbone makes of the background never changes.
_VIEWS: Final[WeakKeyDictionary[Backbone, tuple[Whitening, ...]]] = WeakKeyDictionary()


def space_id(backbone: Backbone) -> str:
    """Names the space; rows of different spaces must never be compared."""
    # A family that multiplies its embeddings had other questions in the space without the suffix.
    is_plain = type(backbone.model.get_input_embeddings()) is nn.Embedding
    version = f"v{VERSION}" if is_plain else f"v{VERSION}.1"
    return f"backbone-{backbone.description.fingerprint[:16]}-{version}"


class KeyEncoder:
    """Makes rows; use it from one thread. The first picture waits for the background.

    A row is `[image part | question part]`. The image part is what the backbone's vision tower
    makes of the picture (its mean visual token) beside the picture's appearance and its contours,
    each whitened against a background of pictures that mean nothing and of equal weight. The
    question part is its words. Both parts have the same length, and the row has length 1; a missing
    part is zero.
    """

    def __init__(self, features: FeatureCache) -> None:
        self._backbone = features.backbone
        self._features = features

    @torch.inference_mode()
    def encode(
        self,
        images: Sequence[Picture | None],
        questions: Sequence[str | None],
        *,
        pixel_features: PixelFeatures | None = None,
    ) -> Float32[np.ndarray, "items width"]:
        """One row an item, which has a picture, a question or both.

        `pixel_features` are the images' of that method, where another thread has asked for them.

        Raises:
            InvalidInputError: The lists differ in length, or an item has neither.
            InvalidImageError: A picture is damaged.
        """
        texts = texts_beside(images, questions)
        words = np.stack([wording(text) for text in texts]) if texts else np.zeros((0, WIDTH))
        rows = np.concatenate([self._image_part(images, pixel_features), unit_rows(words)], axis=1)
        return unit_rows(rows).astype(np.float32)

    def prepare(self) -> BackgroundSteps[None]:
        """Encodes the background, once a backbone; yields between any two passes through it."""
        if self._backbone not in _VIEWS:
            _VIEWS[self._backbone] = yield from _fit(self._backbone)

    @property
    def view_widths(self) -> tuple[int, ...]:
        """Numbers of a row that belong to each way of looking at the picture."""
        return tuple(view.axes.shape[1] for view in self._whitenings())

    @property
    def image_width(self) -> int:
        """Numbers of a row that belong to the picture."""
        return sum(self.view_widths)

    def pixel_features(self, images: Sequence[Picture | None]) -> PixelFeatures:
        """Statistics of the pictures' pixels, one array a kind; any thread may ask.

        Raises:
            InvalidImageError: A picture is damaged.
        """
        return _pixel_features(
            self._features.pixels.get(image) for image in images if image is not None
        )

    def _image_part(
        self, images: Sequence[Picture | None], pixel_features: PixelFeatures | None
    ) -> Float64[np.ndarray, "items width"]:
        places = [place for place, image in enumerate(images) if image is not None]
        part = np.zeros((len(images), self.image_width))
        if places:
            shown = [image for image in images if image is not None]
            known = self.pixel_features(shown) if pixel_features is None else pixel_features
            seen = [self._features.summaries(shown).numpy(), *known]
            views = zip(self._whitenings(), seen, strict=True)
            rows = np.concatenate([view.apply(rows) for view, rows in views], axis=1)
            part[places] = unit_rows(rows)
        return part

    def _whitenings(self) -> tuple[Whitening, ...]:
        finish(self.prepare())
        return _VIEWS[self._backbone]


def _fit(backbone: Backbone) -> BackgroundSteps[tuple[Whitening, ...]]:
    families, pixel_features = yield OffDevice(_background)
    # Not in the cache of those who work: they would lose what they need.
    cache = FeatureCache(backbone)
    towers = []
    for family in families:
        yield OffDevice(partial(cache.pixels.prefetch, family))
        towers.append(cache.summaries(family).numpy())
        yield None
    views: tuple[Whitening, ...] = yield OffDevice(
        lambda: tuple(fit_whitening(view) for view in (towers, *pixel_features))
    )
    return views


@cache
def _background() -> tuple[list[list[Picture]], list[tuple[Any, ...]]]:
    """Families of pictures, and of each kind of pixel features those of each family."""
    families = background_families()
    pixel_features = zip(*(_pixel_features(family) for family in families), strict=True)
    return [[Picture.of(image) for image in family] for family in families], list(pixel_features)


def _pixel_features(images: Iterable[Image.Image]) -> PixelFeatures:
    """`[items, width]` of each kind; empty without pictures."""
    # One picture after the other: no set is ever held decoded.
    rows = [[describe(image) for describe in _PIXEL_FEATURES] for image in images]
    return [np.stack(view) for view in zip(*rows, strict=True)]
