"""Pictures of vision batches as pixels, a bounded number of bytes at a time."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from PIL import Image

from app.core.pictures import Picture
from app.core.pixels import decode, pixel_digest

BATCH_PICTURES: Final = 64
BATCH_BYTES: Final = 64 << 20
KEPT_BYTES: Final = 128 << 20
_CHANNELS: Final = 3


def _num_bytes(image: Image.Image) -> int:
    return image.width * image.height * _CHANNELS


def shown_digest(picture: Picture) -> str:
    """A digest that is equal for files that show the same, whatever their bytes.

    Raises:
        InvalidImageError: The picture is damaged.
    """
    return picture.pixel_digest or pixel_digest(decode(picture.data))


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
        return decode(picture.data) if kept is None else kept

    def keep(self, picture: Picture) -> Image.Image:
        """As `get`, and keeps the pixels for the next who asks."""
        image = self.get(picture)
        with self._lock:
            if picture.digest not in self._kept:
                self._kept[picture.digest] = image
                self._num_bytes += _num_bytes(image)
            while self._num_bytes > self._max_bytes:
                _, dropped = self._kept.popitem(last=False)
                self._num_bytes -= _num_bytes(dropped)
        return image

    def keep_all(self, pictures: Iterable[Picture]) -> None:
        """As `keep`, for each of them."""
        for picture in pictures:
            self.keep(picture)

    def drop(self, digest: str) -> None:
        """Forget a picture whose features are known."""
        with self._lock:
            dropped = self._kept.pop(digest, None)
            self._num_bytes -= 0 if dropped is None else _num_bytes(dropped)


def plan_batches(pictures: Iterable[Picture]) -> list[list[Picture]]:
    """Pictures whose headers tell the same size, as many together as a vision pass may see."""
    by_size: dict[tuple[int, int], list[Picture]] = {}
    for picture in pictures:
        by_size.setdefault(picture.size, []).append(picture)
    batches = []
    for (width, height), group in by_size.items():
        count = max(1, min(BATCH_PICTURES, BATCH_BYTES // (width * height * _CHANNELS or 1)))
        batches += [group[start : start + count] for start in range(0, len(group), count)]
    return batches


def batches_of_equal_size(
    pictures: Iterable[Picture], pixels: DecodedPictures
) -> Iterator[dict[str, Image.Image]]:
    """Pixels by digest in batches that need no padding; one batch is decoded at a time.

    Raises:
        InvalidImageError: A picture is damaged.
    """
    for planned in plan_batches(pictures):
        batch = {one.digest: pixels.get(one) for one in planned}
        # A header may hide how its picture stands.
        ordered = sorted(batch.items(), key=lambda pair: pair[1].size)
        for _, equal in groupby(ordered, key=lambda pair: pair[1].size):
            yield dict(equal)
