"""Pictures and questions as rows in the space in which vectors are found again."""

from collections.abc import Generator, Iterable, Sequence
from functools import cache, partial
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float32, Float64
from PIL import Image

from app.core.pictures import Picture
from app.method.backbone.embedding import texts_beside
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.keys.appearance import appearance, contours
from app.method.keys.background import background_families
from app.method.keys.whitening import Whitening, fit_whitening, unit_rows
from app.method.keys.wording import WIDTH, wording
from app.method.steps import OffDevice, finish

Looks: TypeAlias = list[Float64[np.ndarray, "pictures _"]]

VERSION: Final = 3
# What is looked at beside what the vision tower sees.
_LOOKS: Final = (appearance, contours)
# What a backbone makes of the background never changes.
_VIEWS: Final[WeakKeyDictionary[Backbone, tuple[Whitening, ...]]] = WeakKeyDictionary()


def space_id(backbone: Backbone) -> str:
    """Names the space; rows of different spaces must never be compared."""
    return f"backbone-{backbone.description.fingerprint[:16]}-v{VERSION}"


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
        looks: Looks | None = None,
    ) -> Float32[np.ndarray, "items width"]:
        """One row an item, which has a picture, a question or both.

        `looks` is what the method of that name says of the images, where another thread has asked.

        Raises:
            InvalidInputError: The lists differ in length, or an item has neither.
            InvalidImageError: A picture is damaged.
        """
        asked = texts_beside(images, questions)
        words = np.stack([wording(text) for text in asked]) if asked else np.zeros((0, WIDTH))
        rows = np.concatenate([self._image_part(images, looks), unit_rows(words)], axis=1)
        return unit_rows(rows).astype(np.float32)

    def prepare(self) -> Generator[OffDevice | None, Any, None]:
        """Looks at the background, once a backbone; yields between any two passes through it."""
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

    def looks(self, images: Sequence[Picture | None]) -> Looks:
        """What the pictures look like, one array for each way of looking; any thread may ask.

        Raises:
            InvalidImageError: A picture is damaged.
        """
        return _looks(self._features.pixels.get(image) for image in images if image is not None)

    def _image_part(
        self, images: Sequence[Picture | None], looks: Looks | None
    ) -> Float64[np.ndarray, "items width"]:
        places = [place for place, image in enumerate(images) if image is not None]
        part = np.zeros((len(images), self.image_width))
        if places:
            shown = [image for image in images if image is not None]
            known = self.looks(shown) if looks is None else looks
            seen = [self._features.summaries(shown).numpy(), *known]
            views = zip(self._whitenings(), seen, strict=True)
            rows = np.concatenate([view.apply(rows) for view, rows in views], axis=1)
            part[places] = unit_rows(rows)
        return part

    def _whitenings(self) -> tuple[Whitening, ...]:
        finish(self.prepare())
        return _VIEWS[self._backbone]


def _fit(backbone: Backbone) -> Generator[OffDevice | None, Any, tuple[Whitening, ...]]:
    families, looks = yield OffDevice(_background)
    # Not in the cache of those who work: they would lose what they need.
    cache = FeatureCache(backbone)
    towers = []
    for family in families:
        yield OffDevice(partial(cache.pixels.keep, family))
        towers.append(cache.summaries(family).numpy())
        yield None
    views: tuple[Whitening, ...] = yield OffDevice(
        lambda: tuple(fit_whitening(view) for view in (towers, *looks))
    )
    return views


@cache
def _background() -> tuple[list[list[Picture]], list[tuple[Any, ...]]]:
    """Families of pictures, and for each way of looking what each family looks like."""
    families = background_families()
    looks = zip(*(_looks(family) for family in families), strict=True)
    return [[Picture.of(image) for image in family] for family in families], list(looks)


def _looks(images: Iterable[Image.Image]) -> Looks:
    """`[items, width]` for each way of looking at pixels; empty without pictures."""
    # One picture after the other: no set is ever held decoded.
    rows = [[look(image) for look in _LOOKS] for image in images]
    return [np.stack(view) for view in zip(*rows, strict=True)]
