"""Vision features computed once per picture and reused by teacher, student and evaluation.

Knows prompts and pictures; knows no question's meaning, no answer and no vectors.

Steering never touches the vision tower, so its output is the same for every prompt that shows the
picture. Families that take precomputed features are fed from here; others, and those whose
placeholders depend on the text around them (which a comparison tells), read pixels as usual.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.loading import Backbone
from app.method.backbone.padding import TOKEN_KEYS
from app.method.backbone.pictures import DecodedPictures, batches_of_equal_size, plan_batches
from app.method.backbone.prompts import (
    EncodedBatch,
    PromptText,
    encode_prompts,
    finish_batch,
    process,
    writes_bos,
)
from app.method.backbone.token_rows import Side, padded, token_rows
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
_TYPE_KEYS: Final = frozenset({"mm_token_type_ids", "token_type_ids"})


def _probe_width(cache: "FeatureCache") -> int:
    """How wide summaries are, when no picture has been seen."""
    probe = Picture.of(Image.new("RGB", _PROBE_SIZE, _PROBE_GREY))
    return int(cache.summaries([probe]).shape[1])


class FeatureCache:
    """The vision features of pictures seen so far, with the least recently used dropped first.

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
        self._backbone = backbone
        self._max_bytes = max_bytes
        self._max_summaries = max_summaries
        self._num_bytes = 0
        self.pixels = DecodedPictures()
        self._features: OrderedDict[str, ImageFeatures] = OrderedDict()
        self._summaries: OrderedDict[str, Float32[Tensor, " width"]] = OrderedDict()
        self._tokens_of_size: dict[tuple[int, int], int] = {}
        self._type_keys: tuple[str, ...] = ()
        token = getattr(backbone.processor, "image_token", None)
        self._image_token = token if isinstance(token, str) else "<image>"
        known = self._image_token in backbone.tokenizer.get_vocab()
        self._takes_features = known and takes_precomputed(backbone.model)
        self._is_checked = False

    @property
    def takes_features(self) -> bool:
        """Whether prompts are built from kept features rather than from pixels."""
        return self._takes_features

    def knows(self, picture: Picture) -> bool:
        """Whether nothing has to be decoded for the picture; any thread may ask."""
        return picture.digest in (self._features if self._takes_features else self._summaries)

    def prepare(self, images: Iterable[Picture]) -> None:
        """Computes what is missing, in batches of pictures of equal size.

        Raises:
            InvalidInputError: The processor refuses a picture.
        """
        for group in batches_of_equal_size(self._missing(images), self.pixels):
            self._compute(group)

    def missing(self, images: Iterable[Picture]) -> list[list[Picture]]:
        """What `prepare` would have to compute, in the batches that it would make of it."""
        return plan_batches(self._missing(images))

    def _missing(self, images: Iterable[Picture]) -> list[Picture]:
        kept = self._features if self._takes_features else self._summaries
        wanted = {picture.digest: picture for picture in images if picture.digest not in kept}
        return list(wanted.values())

    def summaries(self, images: Sequence[Picture | None]) -> Float32[Tensor, "images width"]:
        """The mean visual token of each picture, on the CPU; zeros where there is no picture.

        Raises:
            InvalidInputError: The processor refuses a picture.
        """
        shown = [picture for picture in images if picture is not None]
        digests = [picture.digest for picture in shown]
        for digest in set(digests) & set(self._features) - set(self._summaries):
            # Dropped earlier than the features that it is read off.
            self._summaries[digest] = self._features[digest].summary
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

        Args:
            prompts: At least one.
            answers: One text a prompt, or None to leave the prompts open for generation.

        Raises:
            ContextOverflowError: A row is longer than the backbone's context window.
            InvalidInputError: The processor refuses a picture or a prompt.
        """
        self._check(prompts)
        if not self._takes_features or not any(prompt.images for prompt in prompts):
            return encode_prompts(self._backbone, prompts, answers=answers, pixels=self.pixels.get)
        side: Side = "left" if answers is None else "right"
        self._drop_summaries()
        return finish_batch(self._backbone, self._assemble(prompts, side), answers=answers)

    def count_tokens(self, prompts: Sequence[PromptText]) -> list[int]:
        """How long each prompt will be, without an answer; no vision tower runs for it.

        It is exact where prompts are built from kept features, and close enough to plan batches
        with elsewhere.
        """
        texts = [prompt.text for prompt in prompts]
        encoded = self._backbone.tokenizer(
            texts, add_special_tokens=not writes_bos(self._backbone, texts[0])
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        most = max(prompts, key=lambda prompt: len(prompt.images))
        if not most.images:
            return lengths
        if self._takes_features:
            return [
                length + sum(self.count_picture_tokens(image) - 1 for image in prompt.images)
                for length, prompt in zip(lengths, prompts, strict=True)
            ]
        whole = process(self._backbone, [most], padding_side="right", pixels=self.pixels.get)[
            "input_ids"
        ].shape[1]
        share = max(0, -(-(whole - lengths[prompts.index(most)]) // len(most.images)))
        return [
            length + share * len(prompt.images)
            for length, prompt in zip(lengths, prompts, strict=True)
        ]

    def count_picture_tokens(self, picture: Picture) -> int:
        """How many tokens stand for a picture in a prompt; pictures of one size have as many."""
        size = picture.size
        if size not in self._tokens_of_size:
            alone = PromptText(text=self._image_token, images=(picture,))
            inputs = process(
                self._backbone,
                [alone],
                padding_side="right",
                add_special_tokens=False,
                pixels=self.pixels.get,
            )
            self._tokens_of_size[size] = int(inputs["input_ids"].shape[1])
        return self._tokens_of_size[size]

    def pixels_to_count(self, prompts: Sequence[PromptText]) -> list[Picture]:
        """Pictures of which `count_tokens` will need the pixels."""
        if not self._takes_features:
            return list(max(prompts, key=lambda prompt: len(prompt.images)).images)
        pictures = [picture for prompt in prompts for picture in prompt.images]
        # The first of each size, as the counting goes.
        first = {picture.size: picture for picture in reversed(pictures)}
        return [one for size, one in first.items() if size not in self._tokens_of_size]

    def pixels_to_encode(self, prompts: Sequence[PromptText]) -> list[Picture]:
        """Pictures of which `encode` will need the pixels when their features are known."""
        if not self._takes_features:
            return [picture for prompt in prompts for picture in prompt.images]
        shown = self._unchecked(prompts)
        return [] if shown is None else list(shown.images)

    def _unchecked(self, prompts: Sequence[PromptText]) -> PromptText | None:
        shown = (prompt for prompt in prompts if prompt.images)
        return None if self._is_checked else next(shown, None)

    def _check(self, prompts: Sequence[PromptText]) -> None:
        """Compares with the processor once, on the first prompt that shows a picture."""
        shown = self._unchecked(prompts)
        if shown is None or not self._takes_features:
            return
        self._is_checked = True
        wanted = process(self._backbone, [shown], padding_side="right", pixels=self.pixels.get)
        keys = set(wanted) & set(TOKEN_KEYS)
        self._type_keys = tuple(sorted(keys & _TYPE_KEYS))
        if keys - _TYPE_KEYS != {"input_ids", "attention_mask"}:
            self._takes_features = False
            return
        found = self._assemble([shown], "right")
        self._takes_features = all(torch.equal(wanted[key], found[key]) for key in keys)

    def _assemble(self, prompts: Sequence[PromptText], side: Side) -> dict[str, Any]:
        self.prepare([image for prompt in prompts for image in prompt.images])
        shown = [[self._get(image) for image in prompt.images] for prompt in prompts]
        rows = token_rows(
            self._backbone,
            [prompt.text for prompt in prompts],
            [[features.placeholder_ids for features in row] for row in shown],
            image_token=self._image_token,
        )
        columns = padded(self._backbone, rows, side=side, type_keys=self._type_keys)
        return {**columns, **join_features([features for row in shown for features in row])}

    def _get(self, picture: Picture) -> ImageFeatures:
        digest = picture.digest
        if digest not in self._features:
            self._compute({digest: self.pixels.get(picture)})
        self._features.move_to_end(digest)
        return self._features[digest]

    @torch.no_grad()
    def _compute(self, group: dict[str, Image.Image]) -> None:
        alone = [
            PromptText(text=self._image_token, images=(Picture(digest=digest, source=b""),))
            for digest in group
        ]
        try:
            inputs = process(
                self._backbone,
                alone,
                padding_side="right",
                add_special_tokens=False,
                pixels=lambda picture: group[picture.digest],
            )
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise InvalidInputError(
                "The processor cannot read an image", details={"reason": type(error).__name__}
            ) from error
        if not self._takes_features:
            states = tower_states(self._backbone.model, inputs, count=len(group))
            for digest, tokens in zip(group, states, strict=True):
                self._summaries[digest] = mean_token([tokens])
            return
        found = encode_images(self._backbone.model, inputs, count=len(group))
        if found is None:
            for digest, image in group.items():
                self._compute({digest: image})
            return
        for digest, features in zip(group, found, strict=True):
            self.pixels.drop(digest)
            self._summaries[digest] = features.summary
            self._store(digest, features)

    def _drop_summaries(self) -> None:
        while self._max_summaries is not None and len(self._summaries) > self._max_summaries:
            self._summaries.popitem(last=False)

    def _store(self, digest: str, features: ImageFeatures) -> None:
        self._features[digest] = features
        self._num_bytes += features.num_bytes
        while self._num_bytes > self._max_bytes and len(self._features) > 1:
            _, dropped = self._features.popitem(last=False)
            self._num_bytes -= dropped.num_bytes
