"""The vision side of a backbone: pictures in, features of each picture out."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, cast

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from transformers import PreTrainedModel

from app.core.errors import UnsupportedBackboneError

GRID_KEY: Final = "image_grid_thw"
_DEEPSTACK: Final = "deepstack_features"
_ROWS_OF_PICTURES: Final = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFeatures:
    """What the vision side makes of one picture.

    Attributes:
        output: As the family gives it out: what replaces the embeddings, and in some families
            further features for the first decoder layers.
        grid: The picture's row of `image_grid_thw`, in families with multimodal positions.
    """

    output: Any
    grid: Int[Tensor, "1 3"] | None

    @property
    def num_bytes(self) -> int:
        """Memory the tensors take."""
        layers = getattr(self.output, _DEEPSTACK, None) or ()
        return sum(part.nbytes for part in chain(self.output.pooler_output, *layers))

    @property
    def summary(self) -> Float32[Tensor, " width"]:
        """The mean visual token, on the CPU."""
        return mean_token(self.output.pooler_output)


def mean_token(parts: Iterable[Float[Tensor, "..."]]) -> Float32[Tensor, " width"]:
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
    layers = getattr(output, _DEEPSTACK, None) or ()
    grid = inputs.get(GRID_KEY)

    def of_picture(row: int) -> ImageFeatures:
        share = pooled if count == 1 else pooled[row : row + 1]
        is_whole = isinstance(share, Tensor)
        own = type(output)(pooler_output=share.clone() if is_whole else [p.clone() for p in share])
        if layers:
            own[_DEEPSTACK] = [[layer[row].clone()] for layer in layers]
        return ImageFeatures(output=own, grid=None if grid is None else grid[row : row + 1].clone())

    return [of_picture(row) for row in range(count)]


def join_features(shown: Sequence[ImageFeatures]) -> dict[str, Any]:
    """Keyword arguments that feed a model these pictures, in the order of their placeholders."""
    joined = join_outputs([features.output for features in shown])
    inputs: dict[str, Any] = {"mm_encoder_outputs": {"image": joined}}
    grids = [features.grid for features in shown if features.grid is not None]
    return {**inputs, GRID_KEY: torch.cat(grids)} if grids else inputs


def join_outputs(outputs: Sequence[Any]) -> Any:  # noqa: ANN401 - each family has its own class
    """One output of the vision side for the pictures of several, in their order."""
    pooled = [output.pooler_output for output in outputs]
    is_whole = isinstance(pooled[0], Tensor)
    joined = type(outputs[0])(pooler_output=torch.cat(pooled) if is_whole else [*chain(*pooled)])
    layers = [getattr(output, _DEEPSTACK, None) for output in outputs]
    if layers[0]:
        joined[_DEEPSTACK] = [list(chain(*parts)) for parts in zip(*layers, strict=True)]
    return joined


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
