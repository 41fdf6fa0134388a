"""A pool of rendered scenes, drawn once and used by every stage of the training.

Knows pixels and scenes; knows no words.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from tools.pocket.world import ATTRIBUTES, SIDE_PIXELS, Scene, render_scene, sample_scene

_BATCH = 512


@dataclass(frozen=True, eq=False)
class ScenePool:
    """Scenes with their images.

    Attributes:
        scenes: What each image shows.
        pixels: The images as they were drawn.
        values: For every attribute, the index of each scene's value.
    """

    scenes: tuple[Scene, ...]
    pixels: UInt8[Tensor, "images 3 side side"]
    values: Mapping[str, Int[Tensor, " images"]]

    def __len__(self) -> int:
        return len(self.scenes)


def render_pool(
    size: int, *, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> ScenePool:
    """Draws a pool; the same size and seed give the same pool.

    Args:
        size: Images.
        seed: Of everything random in it.
        on_progress: Called with images done and images wanted.
    """
    rng = np.random.default_rng(seed)
    pixels = np.empty((size, SIDE_PIXELS, SIDE_PIXELS, 3), dtype=np.uint8)
    scenes = []
    for index in range(size):
        scene = sample_scene(rng)
        pixels[index] = np.asarray(render_scene(scene, rng))
        scenes.append(scene)
        if on_progress is not None and (index + 1) % 1000 == 0:
            on_progress(index + 1, size)
    values = {name: torch.tensor([getattr(scene, name) for scene in scenes]) for name in ATTRIBUTES}
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return ScenePool(tuple(scenes), images, values)


def normalise(
    pixels: UInt8[Tensor, "images 3 side side"],
) -> Float[Tensor, "images 3 side side"]:
    """The images as the bundled image processor hands them to the vision tower."""
    return pixels.float() / 127.5 - 1.0


@torch.no_grad()
def patch_features(
    vision_tower: torch.nn.Module, pool: ScenePool
) -> Float[Tensor, "images patches vision"]:
    """The frozen vision tower's output for the whole pool, in half precision to save memory."""
    batches = [
        vision_tower(pixel_values=normalise(part)).last_hidden_state.half()
        for part in torch.split(pool.pixels, _BATCH)
    ]
    return torch.cat(batches)


def attribute_sizes() -> dict[str, int]:
    """How many values each attribute has."""
    return {name: len(values) for name, values in ATTRIBUTES.items()}
