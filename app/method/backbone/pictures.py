"""Pictures as pixels, and in bounded passes of the vision tower.

How much of it a picture is depends on its processor: some cut it into dozens of tiles.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, groupby, takewhile
from typing import Any, Final, TypeAlias

from PIL import Image
from torch import Tensor

from app.core.pictures import Picture
from app.core.pixels import pixel_digest
from app.method.backbone.loading import Backbone

PASS_PICTURES: Final = 64
# Ten tiles of 512 x 512, or two dozen pictures of 336 x 336; 32 MiB in float32.
PASS_VALUES: Final = 8 << 20
# Of pictures as they are decoded.
PASS_BYTES: Final = 64 << 20
KEPT_BYTES: Final = 128 << 20
_KEPT_SIZES: Final = 4096
_CHANNELS: Final = 3

Size: TypeAlias = tuple[int, int]


def decoded_bytes(size: Size) -> int:
    """What a picture of this width and height takes as pixels."""
    return size[0] * size[1] * _CHANNELS


def shown_digest(picture: Picture) -> str:
    """A digest that is equal for files that show the same, whatever their bytes.

    Raises:
        InvalidImageError: The picture is damaged.
    """
    return picture.pixel_digest or pixel_digest(picture.decoded())


class DecodedPictures:
    """Pixels of pictures that a vision batch will need soon; any thread may ask.

    So requests have their pictures decoded, or refused, before they reach the device thread.

    Args:
        max_bytes: Most pixels kept; what was asked for first goes first.
    """

    def __init__(self, *, max_bytes: int = KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._kept: OrderedDict[str, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, picture: Picture) -> Image.Image:
        """The pixels of a picture.

        Raises:
            InvalidImageError: It is damaged.
        """
        with self._lock:
            kept = self._kept.get(picture.digest)
        return picture.decoded() if kept is None else kept

    def by_size(self, pictures: Iterable[Picture]) -> Iterator[dict[str, Image.Image]]:
        """The pixels of pictures by their digests, those of one size together.

        Raises:
            InvalidImageError: A picture is damaged.
        """
        # A header may hide how its picture stands.
        found = sorted(
            ((one.digest, self.get(one)) for one in pictures), key=lambda pair: pair[1].size
        )
        for _, equal in groupby(found, key=lambda pair: pair[1].size):
            yield dict(equal)

    def prefetch(self, pictures: Iterable[Picture]) -> None:
        """Decodes pictures and keeps their pixels for the next who asks.

        Raises:
            InvalidImageError: One is damaged.
        """
        for picture in pictures:
            image = self.get(picture)
            with self._lock:
                if picture.digest not in self._kept:
                    self._kept[picture.digest] = image
                    self._num_bytes += decoded_bytes(image.size)
                while self._num_bytes > self._max_bytes:
                    _, dropped = self._kept.popitem(last=False)
                    self._num_bytes -= decoded_bytes(dropped.size)

    def drop(self, digest: str) -> None:
        """Forget a picture whose features are known."""
        with self._lock:
            dropped = self._kept.pop(digest, None)
            self._num_bytes -= 0 if dropped is None else decoded_bytes(dropped.size)


class VisionPasses:
    """How many pictures the vision tower sees at once.

    A picture that exceeds the bounds by itself has a pass of its own.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._processor: Any = backbone.processor.image_processor
        # The processor is asked once a size; any thread may.
        self.num_values: Callable[[Size], int] = lru_cache(_KEPT_SIZES)(self._num_values)

    def _num_values(self, size: Size) -> int:
        """Values of pixels that the processor makes of a picture, all of its tiles together."""
        blank = Image.new("RGB", size)
        try:
            found = self._processor(images=[blank], return_tensors="pt")
            # The first Idefics has nothing else to tell.
            values = found if isinstance(found, Tensor) else found["pixel_values"]
        except (ValueError, IndexError, TypeError, ZeroDivisionError):
            # Refused pictures are told to whoever shows them.
            return decoded_bytes(size)
        return sum(part.numel() for part in values)

    def leading(self, pictures: Sequence[Picture]) -> int:
        """How many of the pictures, from the first on, one pass takes: one at least."""
        if len(pictures) <= 1:
            return len(pictures)
        values = accumulate(self.num_values(picture.size) for picture in pictures[:PASS_PICTURES])
        return max(1, sum(1 for _ in takewhile(lambda one: one <= PASS_VALUES, values)))

    def plan(self, pictures: Iterable[Picture]) -> list[list[Picture]]:
        """Pictures whose headers tell the same size, as many together as a pass takes."""
        by_size: dict[Size, list[Picture]] = {}
        for picture in pictures:
            by_size.setdefault(picture.size, []).append(picture)
        batches = []
        for size, group in by_size.items():
            count = self._most(size) if len(group) > 1 else 1
            batches += [group[start : start + count] for start in range(0, len(group), count)]
        return batches

    def _most(self, size: Size) -> int:
        decoded = decoded_bytes(size) or 1
        values = self.num_values(size) or 1
        return max(1, min(PASS_PICTURES, PASS_BYTES // decoded, PASS_VALUES // values))
