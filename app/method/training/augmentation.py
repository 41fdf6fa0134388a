"""Views of a picture that show the same thing: slightly turned, scaled and moved."""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Final

from PIL import Image

from app.core.pictures import Picture
from app.method.backbone.examples import Example
from app.method.backbone.randomness import generator_for

_MOST_DEGREES: Final = 12.0
_SCALES: Final = (0.8, 1.15)
# Of a side.
_MOST_SHIFT: Final = 0.08


@dataclass(frozen=True, kw_only=True, eq=False)
class _View(Picture):
    """A picture whose pixels are turned, scaled and moved once they are decoded."""

    angle: float
    scale: float
    shift: tuple[float, float]

    def decoded(self) -> Image.Image:
        image = super().decoded()
        width, height = image.size
        cosine = math.cos(self.angle) / self.scale
        sine = math.sin(self.angle) / self.scale
        middle_x, middle_y = width / 2, height / 2
        # Where in the picture each pixel of the view lies.
        from_x = middle_x + self.shift[0] * width
        from_y = middle_y + self.shift[1] * height
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            (
                *(cosine, sine, middle_x - cosine * from_x - sine * from_y),
                *(-sine, cosine, middle_y + sine * from_x - cosine * from_y),
            ),
            resample=Image.Resampling.BICUBIC,
            # What a view has beyond the picture looks like the picture's corner.
            fillcolor=image.getpixel((0, 0)),
        )


def augmented(picture: Picture, view: int) -> Picture:
    """A view of a picture, of the same size; 0 is the picture itself.

    Views are turned by up to 12 degrees, scaled by 0.8 to 1.15 and moved by up to 8 % of a side,
    which keeps what is left of, above and larger than something else. The same number gives the
    same view of a picture in every run; its pixels are made when they are asked for.
    """
    if not view:
        return picture
    generator = generator_for(view, "augmentation", picture.digest)
    shift_x, shift_y = generator.uniform(-_MOST_SHIFT, _MOST_SHIFT, 2).tolist()
    return _View(
        digest=hashlib.sha256(f"{picture.digest} {view}".encode()).hexdigest(),
        source=picture.source,
        angle=math.radians(generator.uniform(-_MOST_DEGREES, _MOST_DEGREES)),
        scale=generator.uniform(*_SCALES),
        shift=(shift_x, shift_y),
    )


def augmented_example(example: Example, view: int) -> Example:
    """The item with this view of each of its pictures."""
    return replace(
        example,
        image=None if example.image is None else augmented(example.image, view),
        others=tuple(augmented(picture, view) for picture in example.others),
    )
