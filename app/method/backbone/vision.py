"""The vision side of a backbone: pictures in, features of each picture out."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from transformers import PreTrainedModel

from app.core.errors import UnsupportedBackboneError

GRID_KEY: Final = "image_grid_thw"
_ROWS_OF_PICTURES: Final = 5

Parts: TypeAlias = tuple[Float[Tensor, "..."], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFeatures:
    """What the vision side makes of one picture.

    Attributes:
        pooled: What replaces their embeddings, in the parts the family returns.
        deepstack: Further features for the first decoder layers, in some families.
        grid: The picture's row of `image_grid_thw`, in families with multimodal positions.
        output_type: The family's output class.
    """

    pooled: Parts
    deepstack: Parts
    grid: Int[Tensor, "1 3"] | None
    output_type: type[Any]

    @property
    def num_bytes(self) -> int:
        """Memory the tensors take."""
        return sum(part.numel() * part.element_size() for part in (*self.pooled, *self.deepstack))

    @property
    def summary(self) -> Float32[Tensor, " width"]:
        """The mean visual token, on the CPU."""
        return mean_token(self.pooled)


def mean_token(parts: Sequence[Float[Tensor, "..."]]) -> Float32[Tensor, " width"]:
    """The mean over all tokens of all parts, on the CPU."""
    return torch.cat([part.flatten(0, -2) for part in parts]).float().mean(0).cpu()


def takes_precomputed(model: PreTrainedModel) -> bool:
    """Whether the model can be fed with features instead of pixels."""
    parameters = inspect.signature(model.forward).parameters
    return "mm_encoder_outputs" in parameters and hasattr(model, "get_image_features")


def _call_with_known(function: object, inputs: Mapping[str, Any], **options: bool) -> Any:  # noqa: ANN401
    call = cast("Callable[..., Any]", function)
    known = inspect.signature(call).parameters
    return call(**{key: value for key, value in inputs.items() if key in known}, **options)


def encode_images(
    model: PreTrainedModel, inputs: Mapping[str, Any], *, count: int
) -> list[ImageFeatures] | None:
    """The features of each picture of a batch of prompts that consist of one picture each.

    Returns:
        One entry a picture, or None when a picture's share of the batch cannot be told; a batch of
        one always can.
    """
    output = _call_with_known(model.get_image_features, inputs, return_dict=True)
    pooled = output.pooler_output
    if len(pooled) != count and count > 1:
        return None
    if isinstance(pooled, Tensor):
        pooled = torch.split(pooled, 1 if count > 1 else len(pooled))
    shares = [(part,) for part in pooled] if count > 1 else [tuple(pooled)]
    layers = getattr(output, "deepstack_features", None) or ()
    grid = inputs.get(GRID_KEY)
    return [
        ImageFeatures(
            pooled=tuple(part.clone() for part in shares[row]),
            deepstack=tuple(layer[row].clone() for layer in layers),
            grid=None if grid is None else grid[row : row + 1].clone(),
            output_type=type(output),
        )
        for row in range(count)
    ]


def join_features(shown: Sequence[ImageFeatures]) -> dict[str, Any]:
    """Keyword arguments that feed a model these pictures, in the order of their placeholders."""
    pooled = [part for features in shown for part in features.pooled]
    has_picture_axis = pooled[0].ndim > 2  # noqa: PLR2004 - tokens and width otherwise
    output: Any = shown[0].output_type(
        pooler_output=torch.cat(pooled) if has_picture_axis else pooled
    )
    if shown[0].deepstack:
        layers = zip(*(features.deepstack for features in shown), strict=True)
        output.deepstack_features = [list(layer) for layer in layers]
    inputs: dict[str, Any] = {"mm_encoder_outputs": {"image": output}}
    grids = [features.grid for features in shown if features.grid is not None]
    return {**inputs, GRID_KEY: torch.cat(grids)} if grids else inputs


def tower_states(
    model: PreTrainedModel, inputs: Mapping[str, Any], *, count: int
) -> Float[Tensor, "images tokens width"]:
    """The last states of the vision tower, for families that join pictures by cross-attention.

    Raises:
        UnsupportedBackboneError: There is no vision tower where it should be.
    """
    tower = model.get_encoder(modality="image")
    if tower is model:
        raise UnsupportedBackboneError(
            "Pictures cannot be summarised: wanted a vision tower, found none"
        )
    pixels: Tensor = inputs["pixel_values"]
    if pixels.ndim == _ROWS_OF_PICTURES:
        inputs = {**inputs, "pixel_values": pixels.flatten(0, 1)}
    states: Tensor = _call_with_known(tower.forward, inputs).last_hidden_state
    return states.reshape(count, -1, states.shape[-1])
