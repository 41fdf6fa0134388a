"""Vision features computed once per picture and reused by teacher, student and evaluation.

Knows the calling conventions of the vision side of transformers; knows no question and no answer.

Steering never touches the vision tower, so its output is the same for every prompt that shows the
picture. Families that take precomputed features (`mm_encoder_outputs`) are fed from here; for the
others, and wherever a processor's placeholders turn out to depend on the text around them, prompts
are read from pixels as usual. Which way is taken is decided by comparison with the processor.
"""

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import torch
from jaxtyping import Float, Float32, Int
from PIL import Image
from torch import Tensor

from app.core.errors import InvalidInputError, UnsupportedBackboneError
from app.method.backbone import Backbone
from app.method.prompts import (
    TOKEN_KEYS,
    EncodedBatch,
    PromptText,
    encode_prompts,
    finish_batch,
    process,
    writes_bos,
)

DEFAULT_MAX_BYTES: Final = 2 * 1024**3
_BATCH_IMAGES: Final = 64
_TYPE_KEYS: Final = frozenset({"mm_token_type_ids", "token_type_ids"})
_GRID_KEY: Final = "image_grid_thw"

_Inputs: TypeAlias = dict[str, Any]
_Side: TypeAlias = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFeatures:
    """What the vision side makes of one picture.

    Attributes:
        placeholder_ids: Tokens that stand for the picture in a prompt.
        pooled: What replaces their embeddings, in the parts the family returns.
        deepstack: Further features for the first decoder layers, in some families.
        grid: The picture's row of `image_grid_thw`, in families with multimodal positions.
        output_type: The family's output class.
    """

    placeholder_ids: tuple[int, ...]
    pooled: tuple[Float[Tensor, "..."], ...]
    deepstack: tuple[Float[Tensor, "..."], ...]
    grid: Int[Tensor, "1 3"] | None
    output_type: type[Any]

    @property
    def num_bytes(self) -> int:
        """Memory the tensors take."""
        return sum(part.numel() * part.element_size() for part in (*self.pooled, *self.deepstack))


def image_digest(image: Image.Image) -> str:
    """A digest of the decoded picture, equal for equal pixels."""
    digest = hashlib.sha256(f"{image.mode}:{image.size}:".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _call_with_known(function: Callable[..., Any], inputs: _Inputs, **extra: object) -> Any:  # noqa: ANN401
    known = inspect.signature(function).parameters
    return function(**{key: value for key, value in inputs.items() if key in known}, **extra)


def _mean(parts: Sequence[Float[Tensor, "..."]]) -> Float32[Tensor, " width"]:
    flat = torch.cat([part.flatten(0, -2) for part in parts])
    return flat.float().mean(0)


class FeatureCache:
    """The vision features of pictures seen so far, with the least recently used dropped first.

    Holds at most about `max_bytes` of features on the backbone's device; what was dropped is
    computed again when it is needed. The short summaries for retrieval are always kept.
    """

    def __init__(self, backbone: Backbone, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._backbone = backbone
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._features: OrderedDict[str, ImageFeatures] = OrderedDict()
        self._summaries: dict[str, Float32[Tensor, " width"]] = {}
        self._type_keys: tuple[str, ...] = ()
        token = getattr(backbone.processor, "image_token", None)
        self._image_token = token if isinstance(token, str) else ""
        parameters = inspect.signature(backbone.model.forward).parameters
        self._takes_features = (
            "mm_encoder_outputs" in parameters
            and hasattr(backbone.model, "get_image_features")
            and self._image_token in backbone.tokenizer.get_vocab()
        )
        self._is_checked = False

    @property
    def takes_features(self) -> bool:
        """Whether prompts are built from cached features rather than from pixels."""
        return self._takes_features

    def prepare(
        self, images: Sequence[Image.Image], *, on_batch: Callable[[int, int], None] | None = None
    ) -> None:
        """Computes what is missing, in batches of pictures of equal size.

        Args:
            images: Pictures that will be needed.
            on_batch: Called with how many pictures are done and how many there are to do.

        Raises:
            InvalidInputError: The processor refuses a picture.
        """
        missing: dict[str, Image.Image] = {}
        for image in images:
            digest = image_digest(image)
            if digest not in self._summaries or (
                self._takes_features and digest not in self._features
            ):
                missing[digest] = image
        done = 0
        for group in _batches_of_equal_size(missing):
            self._compute(group)
            done += len(group)
            if on_batch is not None:
                on_batch(done, len(missing))

    def summaries(self, images: Sequence[Image.Image]) -> Float32[Tensor, "images width"]:
        """The mean visual token of each picture, on the CPU."""
        self.prepare(images)
        return torch.stack([self._summaries[image_digest(image)] for image in images])

    def encode(
        self, prompts: Sequence[PromptText], *, answers: Sequence[str] | None = None
    ) -> EncodedBatch:
        """The same batch as `encode_prompts`, without going through pixels where that is exact.

        Args:
            prompts: At least one.
            answers: One text a prompt, or None to leave the prompts open for generation.

        Raises:
            TooLargeError: A row is longer than the backbone's context window.
            InvalidInputError: The processor refuses a picture or a prompt.
        """
        self._check(prompts)
        if not self._takes_features or not any(prompt.images for prompt in prompts):
            return encode_prompts(self._backbone, prompts, answers=answers)
        side: _Side = "left" if answers is None else "right"
        return finish_batch(self._backbone, self._assemble(prompts, side), answers=answers)

    def count_tokens(self, prompts: Sequence[PromptText]) -> list[int]:
        """How long each prompt will be, without an answer; close enough to plan batches with."""
        self._check(prompts)
        tokenizer = self._backbone.tokenizer
        texts = tokenizer([prompt.text for prompt in prompts], add_special_tokens=True)
        lengths = [len(ids) for ids in texts["input_ids"]]
        if not any(prompt.images for prompt in prompts):
            return lengths
        if self._takes_features:
            return [
                length + sum(len(self._get(image).placeholder_ids) - 1 for image in prompt.images)
                for length, prompt in zip(lengths, prompts, strict=True)
            ]
        most = max(range(len(prompts)), key=lambda index: len(prompts[index].images))
        inputs = process(self._backbone, [prompts[most]], padding_side="right")
        extra = inputs["input_ids"].shape[1] - lengths[most]
        share = max(0, -(-extra // len(prompts[most].images)))
        return [
            length + share * len(prompt.images)
            for length, prompt in zip(lengths, prompts, strict=True)
        ]

    def _check(self, prompts: Sequence[PromptText]) -> None:
        """Compares with the processor once, on the first prompt that shows a picture."""
        shown = next((prompt for prompt in prompts if prompt.images), None)
        if self._is_checked or not self._takes_features or shown is None:
            return
        self._is_checked = True
        wanted = process(self._backbone, [shown], padding_side="right")
        found_keys = set(wanted) & set(TOKEN_KEYS)
        self._type_keys = tuple(sorted(found_keys & _TYPE_KEYS))
        if found_keys - _TYPE_KEYS != {"input_ids", "attention_mask"}:
            self._takes_features = False
            return
        found = self._assemble([shown], "right")
        self._takes_features = all(torch.equal(wanted[key], found[key]) for key in found_keys)

    def _assemble(self, prompts: Sequence[PromptText], side: _Side) -> _Inputs:
        shown = [self._get(image) for prompt in prompts for image in prompt.images]
        rows = self._token_rows(prompts, iter(shown))
        inputs = self._padded(rows, side)
        pooled = [part for features in shown for part in features.pooled]
        output: Any = shown[0].output_type(
            pooler_output=pooled if pooled[0].ndim == 2 else torch.cat(pooled)  # noqa: PLR2004 - tokens, width
        )
        if shown[0].deepstack:
            layers = zip(*(features.deepstack for features in shown), strict=True)
            output.deepstack_features = [list(layer) for layer in layers]
        grids = [features.grid for features in shown if features.grid is not None]
        if grids:
            inputs[_GRID_KEY] = torch.cat(grids)
        return {**inputs, "mm_encoder_outputs": {"image": output}}

    def _token_rows(
        self,
        prompts: Sequence[PromptText],
        shown: Any,  # noqa: ANN401
    ) -> list[list[int]]:
        tokenizer = self._backbone.tokenizer
        placeholder = tokenizer.convert_tokens_to_ids(self._image_token)
        texts = [prompt.text for prompt in prompts]
        encoded = tokenizer(texts, add_special_tokens=not writes_bos(self._backbone, texts[0]))
        rows: list[list[int]] = []
        for prompt, ids in zip(prompts, encoded["input_ids"], strict=True):
            if ids.count(placeholder) != len(prompt.images):
                raise InvalidInputError(
                    f"Placeholders and images do not match: wanted {len(prompt.images)}, "
                    f"found {ids.count(placeholder)}"
                )
            row: list[int] = []
            for token_id in ids:
                row += next(shown).placeholder_ids if token_id == placeholder else (token_id,)
            rows.append(row)
        return rows

    def _padded(self, rows: Sequence[list[int]], side: _Side) -> _Inputs:
        pad, length = self._backbone.tokenizer.pad_token_id, max(map(len, rows))

        def table(values: Sequence[Sequence[int]], fill: int) -> Int[Tensor, "rows tokens"]:
            filled = [
                [fill] * (length - len(row)) + list(row)
                if side == "left"
                else list(row) + [fill] * (length - len(row))
                for row in values
            ]
            return torch.tensor(filled, dtype=torch.long, device=self._backbone.device)

        inputs = {
            "input_ids": table(rows, cast("int", pad)),
            "attention_mask": table([[1] * len(row) for row in rows], 0),
        }
        for key in self._type_keys:
            types = self._backbone.processor.create_mm_token_type_ids(list(rows))
            inputs[key] = table(types, 0)
        return inputs

    def _get(self, image: Image.Image) -> ImageFeatures:
        digest = image_digest(image)
        if digest not in self._features:
            self._compute({digest: image})
        self._features.move_to_end(digest)
        return self._features[digest]

    @torch.inference_mode()
    def _compute(self, group: dict[str, Image.Image]) -> None:
        alone = [PromptText(text=self._image_token, images=(image,)) for image in group.values()]
        try:
            inputs = process(self._backbone, alone, padding_side="right", add_special_tokens=False)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise InvalidInputError(
                "The processor cannot read an image", details={"reason": type(error).__name__}
            ) from error
        if not self._takes_features:
            hidden = self._tower_output(inputs, len(group))
            for digest, states in zip(group, hidden, strict=True):
                self._summaries[digest] = _mean([states]).cpu()
            return
        encode = cast("Callable[..., Any]", self._backbone.model.get_image_features)
        output = _call_with_known(encode, inputs, return_dict=True)
        parts = _split(output, len(group))
        if parts is None:
            for digest, image in group.items():
                self._compute({digest: image})
            return
        for row, (digest, (pooled, deepstack)) in enumerate(zip(group, parts, strict=True)):
            kept = inputs["attention_mask"][row].bool()
            grid = inputs.get(_GRID_KEY)
            features = ImageFeatures(
                placeholder_ids=tuple(inputs["input_ids"][row][kept].tolist()),
                pooled=tuple(part.clone() for part in pooled),
                deepstack=tuple(part.clone() for part in deepstack),
                grid=None if grid is None else grid[row : row + 1].clone(),
                output_type=type(output),
            )
            self._summaries[digest] = _mean(features.pooled).cpu()
            self._store(digest, features)

    def _tower_output(self, inputs: _Inputs, count: int) -> Float[Tensor, "images ..."]:
        model = self._backbone.model
        tower = model.get_encoder(modality="image")
        if tower is model:
            raise UnsupportedBackboneError(
                "Pictures cannot be summarised: wanted a vision tower, found none"
            )
        pixels = inputs["pixel_values"]
        if pixels.ndim == 5:  # noqa: PLR2004 - one picture a prompt: drop the axis over pictures
            inputs = {**inputs, "pixel_values": pixels.flatten(0, 1)}
        output = _call_with_known(tower.forward, inputs).last_hidden_state
        return cast("Tensor", output).reshape(count, -1, output.shape[-1])

    def _store(self, digest: str, features: ImageFeatures) -> None:
        self._features[digest] = features
        self._num_bytes += features.num_bytes
        while self._num_bytes > self._max_bytes and len(self._features) > 1:
            _, dropped = self._features.popitem(last=False)
            self._num_bytes -= dropped.num_bytes


def _batches_of_equal_size(images: dict[str, Image.Image]) -> list[dict[str, Image.Image]]:
    by_size: dict[tuple[int, int], list[str]] = {}
    for digest, image in images.items():
        by_size.setdefault(image.size, []).append(digest)
    return [
        {digest: images[digest] for digest in digests[start : start + _BATCH_IMAGES]}
        for digests in by_size.values()
        for start in range(0, len(digests), _BATCH_IMAGES)
    ]


_Parts: TypeAlias = tuple[tuple[Float[Tensor, "..."], ...], tuple[Float[Tensor, "..."], ...]]


def _split(output: Any, count: int) -> list[_Parts] | None:  # noqa: ANN401
    """Each picture's share of a batch, or None when it cannot be told."""
    pooled = output.pooler_output
    layers = getattr(output, "deepstack_features", None) or ()
    if len(pooled) != count and count > 1:
        return None
    if isinstance(pooled, Tensor):
        shares = [(pooled[row : row + 1],) for row in range(count)] if count > 1 else [(pooled,)]
    else:
        shares = [(part,) for part in pooled] if count > 1 else [tuple(pooled)]
    return [(share, tuple(layer[row] for layer in layers)) for row, share in enumerate(shares)]
