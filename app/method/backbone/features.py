"""Vision features computed once per picture and reused by teacher, student and evaluation.

Steering never touches the vision tower, so its output is the same for every prompt that shows the
picture. Families that take precomputed features are fed from here; others, and prompts in which a
picture's features or tokens depend on the pictures beside it, read pixels as usual. Which is which
depends on the backbone alone, never on what was asked before.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from app.core.pictures import Picture
from app.method.backbone.chat import image_token
from app.method.backbone.loading import Backbone
from app.method.backbone.pictures import DecodedPictures, VisionPasses
from app.method.backbone.placeholders import Placeholders, Side
from app.method.backbone.prompts import (
    EncodedBatch,
    PromptText,
    encode_prompts,
    finish_batch,
    process,
    writes_bos,
)
from app.method.backbone.vision import (
    ImageFeatures,
    encode_images,
    join_features,
    mean_token,
    takes_precomputed,
    tower_states,
)

DEFAULT_MAX_BYTES: Final = 2 * 1024**3
_PROBE_SIZE: Final = (32, 32)
_PROBE_GREY: Final = (127, 127, 127)


def _probe_width(cache: "FeatureCache") -> int:
    """How wide summaries are, when no picture has been seen."""
    probe = Picture.of(Image.new("RGB", _PROBE_SIZE, _PROBE_GREY))
    return int(cache.summaries([probe]).shape[1])


class FeatureCache:
    """The vision features of pictures a backbone has seen, the least recently used dropped first.

    Holds at most about `max_bytes` of features on the backbone's device; what was dropped is
    computed again when it is needed. The short summaries for retrieval are kept as well: all of
    them, or as many as `max_summaries` says.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_summaries: int | None = None,
    ) -> None:
        self.backbone = backbone
        self._max_bytes = max_bytes
        self._max_summaries = max_summaries
        self._num_bytes = 0
        self.pixels = DecodedPictures()
        self.passes = VisionPasses(backbone)
        # With the text that stands for the picture.
        self._features: OrderedDict[str, tuple[ImageFeatures, str]] = OrderedDict()
        self._summaries: OrderedDict[str, Float32[Tensor, " width"]] = OrderedDict()
        self._placeholders = Placeholders(backbone) if takes_precomputed(backbone.model) else None

    @property
    def caches_features(self) -> bool:
        """Whether prompts with one picture are built from kept features rather than from pixels."""
        return self._placeholders is not None and self._placeholders.fits_one

    def uses_cached_features(self, prompts: Sequence[PromptText]) -> bool:
        """Whether these prompts, as one batch, are built from kept features."""
        return self._placeholders_in(prompts) is not None

    def _placeholders_in(self, prompts: Sequence[PromptText]) -> Placeholders | None:
        """What writes these prompts, unless they are read from pixels."""
        found = self._placeholders
        if found is None:
            return None
        most = max((len(prompt.images) for prompt in prompts), default=0)
        return found if (found.fits_several if most > 1 else found.fits_one) else None

    def is_cached(self, picture: Picture) -> bool:
        """Whether nothing has to be decoded for the picture alone; any thread may ask."""
        return picture.digest in (self._features if self.caches_features else self._summaries)

    def prepare(self, images: Iterable[Picture]) -> None:
        """Computes what is missing, in bounded passes over pictures of equal size.

        Raises:
            InvalidInputError: The processor refuses a picture.
        """
        for batch in self.missing(images):
            for group in self.pixels.by_size(batch):
                self._compute(group)

    def missing(self, images: Iterable[Picture]) -> list[list[Picture]]:
        """What `prepare` would have to compute, in the passes that it would make of it."""
        kept = self._features if self.caches_features else self._summaries
        wanted = {picture.digest: picture for picture in images if picture.digest not in kept}
        return self.passes.plan(wanted.values())

    def missing_summaries(self, images: Sequence[Picture]) -> list[list[Picture]]:
        """What `summaries` would have to compute, likewise."""
        known = (self._summaries, self._features)
        return self.missing(one for one in images if not any(one.digest in some for some in known))

    def summaries(self, images: Sequence[Picture | None]) -> Float32[Tensor, "images width"]:
        """The mean visual token of each picture, on the CPU; zeros where there is no picture.

        Raises:
            InvalidInputError: The processor refuses a picture.
        """
        shown = [picture for picture in images if picture is not None]
        digests = [picture.digest for picture in shown]
        for digest in digests:
            # Dropped earlier than the features that it is read off.
            if digest in self._features and digest not in self._summaries:
                self._summaries[digest] = self._features[digest][0].summary
        self.prepare([picture for picture in shown if picture.digest not in self._summaries])
        rows = [None if image is None else self._summaries[image.digest] for image in images]
        width = len(next(row for row in rows if row is not None)) if shown else _probe_width(self)
        found = torch.stack([torch.zeros(width) if row is None else row for row in rows])
        for digest in digests:
            self._summaries.move_to_end(digest)
        self._drop_summaries()
        return found

    def encode(
        self, prompts: Sequence[PromptText], *, answers: Sequence[str] | None = None
    ) -> EncodedBatch:
        """The same batch as `encode_prompts`, without going through pixels where that is exact.

        Raises:
            ContextOverflowError: A row is longer than the backbone's context window.
            InvalidInputError: The processor refuses a picture or a prompt.
        """
        placeholders = self._placeholders_in(prompts)
        if placeholders is None or not any(prompt.images for prompt in prompts):
            return encode_prompts(self.backbone, prompts, answers=answers, pixels=self.pixels.get)
        side: Side = "left" if answers is None else "right"
        self._drop_summaries()
        inputs = self._assemble(prompts, placeholders, side=side)
        return finish_batch(self.backbone, inputs, answers=answers)

    def count_tokens(self, prompts: Sequence[PromptText]) -> list[int]:
        """How long each prompt will be, without an answer; no vision tower runs for it.

        It is exact where prompts are built from kept features, and close enough to plan batches
        with elsewhere.
        """
        most = max(prompts, key=lambda prompt: len(prompt.images))
        placeholders = self._placeholders_in(prompts)
        if most.images and placeholders is not None:
            shown = [
                [self._text_of(image, placeholders) for image in prompt.images]
                for prompt in prompts
            ]
            return list(map(len, placeholders.rows([prompt.text for prompt in prompts], shown)))
        lengths = self._text_lengths(prompts)
        if not most.images:
            return lengths
        whole = process(self.backbone, [most], padding_side="right", pixels=self.pixels.get)[
            "input_ids"
        ].shape[1]
        share = max(0, -(-(whole - lengths[prompts.index(most)]) // len(most.images)))
        return [
            length + share * len(prompt.images)
            for length, prompt in zip(lengths, prompts, strict=True)
        ]

    def count_picture_tokens(self, prompt: PromptText) -> int:
        """How many tokens of a prompt stand for its pictures."""
        (whole,) = self.count_tokens([prompt])
        (text,) = self._text_lengths([prompt])
        return max(0, whole - text + len(prompt.images)) if prompt.images else 0

    def _text_lengths(self, prompts: Sequence[PromptText]) -> list[int]:
        """The prompts' tokens with one for each picture."""
        texts = [prompt.text for prompt in prompts]
        encoded = self.backbone.tokenizer(
            texts, add_special_tokens=not writes_bos(self.backbone, texts[0])
        )
        return [len(ids) for ids in encoded["input_ids"]]

    def _text_of(self, picture: Picture, placeholders: Placeholders) -> str:
        """What stands for a picture, told by its size."""
        kept = self._features.get(picture.digest)
        if kept is not None:
            return kept[1]
        # A header may hide how its picture stands, so what is asked about is the picture itself.
        return placeholders.known(picture.size) or placeholders.text_for(self.pixels.get(picture))

    def pixels_to_count(self, prompts: Sequence[PromptText]) -> list[Picture]:
        """Pictures of which `count_tokens` will need the pixels."""
        placeholders = self._placeholders_in(prompts)
        if placeholders is None:
            return list(max(prompts, key=lambda prompt: len(prompt.images)).images)
        pictures = [picture for prompt in prompts for picture in prompt.images]
        # The first of each size, as the counting goes.
        first = {picture.size: picture for picture in reversed(pictures)}
        return [one for size, one in first.items() if placeholders.known(size) is None]

    def pixels_to_encode(self, prompts: Sequence[PromptText]) -> list[Picture]:
        """Pictures of which `encode` will need the pixels when their features are known."""
        if self.uses_cached_features(prompts):
            return []
        return [picture for prompt in prompts for picture in prompt.images]

    def _assemble(
        self, prompts: Sequence[PromptText], placeholders: Placeholders, *, side: Side
    ) -> dict[str, Any]:
        self.prepare([image for prompt in prompts for image in prompt.images])
        shown = [[self._get(image) for image in prompt.images] for prompt in prompts]
        rows = placeholders.rows(
            [prompt.text for prompt in prompts], [[text for _, text in row] for row in shown]
        )
        columns = placeholders.padded(rows, side=side)
        return {**columns, **join_features([features for row in shown for features, _ in row])}

    def _get(self, picture: Picture) -> tuple[ImageFeatures, str]:
        digest = picture.digest
        if digest not in self._features:
            self._compute({digest: self.pixels.get(picture)})
        self._features.move_to_end(digest)
        return self._features[digest]

    @torch.no_grad()
    def _compute(self, group: dict[str, Image.Image]) -> None:
        alone = [
            PromptText(
                text=image_token(self.backbone.processor),
                images=(Picture(digest=digest, source=b""),),
            )
            for digest in group
        ]
        inputs = process(
            self.backbone,
            alone,
            padding_side="right",
            add_special_tokens=False,
            pixels=lambda picture: group[picture.digest],
        )
        if self._placeholders is None:
            states = tower_states(self.backbone.model, inputs, count=len(group))
            for digest, tokens in zip(group, states, strict=True):
                self._summaries[digest] = mean_token([tokens])
            return
        found = encode_images(self.backbone.model, inputs, count=len(group))
        if found is None:
            for digest, image in group.items():
                self._compute({digest: image})
            return
        for digest, features in zip(group, found, strict=True):
            self.pixels.drop(digest)
            self._summaries[digest] = features.summary
            if self.caches_features:
                self._store(digest, features, self._placeholders.text_for(group[digest]))

    def _drop_summaries(self) -> None:
        while self._max_summaries is not None and len(self._summaries) > self._max_summaries:
            self._summaries.popitem(last=False)

    def _store(self, digest: str, features: ImageFeatures, text: str) -> None:
        self._features[digest] = (features, text)
        self._num_bytes += features.num_bytes
        while self._num_bytes > self._max_bytes and len(self._features) > 1:
            _, (dropped, _) = self._features.popitem(last=False)
            self._num_bytes -= dropped.num_bytes
