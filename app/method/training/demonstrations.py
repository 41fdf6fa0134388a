"""Which items become queries, and which solved examples stand before a query."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, Int64

from app.core.errors import InvalidDatasetError
from app.method.backbone.examples import Example
from app.method.backbone.randomness import generator_for

_MOST_CANDIDATES: Final = 8
_ITERATIONS: Final = 12
# Of products of points and centres that are in memory at a time.
_MOST_PRODUCTS: Final = 2**24


def hold_out(
    examples: Sequence[Example], *, fraction: float, fewest: int, most: int, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Item numbers for training and for measuring, no picture in both.

    A fraction of the pictures, in [0, 1), is kept back, or more, up to a quarter, where they have
    less than `fewest` items to measure with; 0 keeps back none. At most `most` items measure.

    Returns:
        Training items and held-out items, each ascending.
    """
    pictures = sorted({example.image_id for example in examples})
    order = generator_for(seed, "hold-out").permutation(len(pictures))
    enough = min(len(pictures) // 4, round(fewest * len(pictures) / len(examples)))
    count = max(round(fraction * len(pictures)), enough) if fraction else 0
    kept_back = {pictures[index] for index in order[:count]}
    training = [i for i, example in enumerate(examples) if example.image_id not in kept_back]
    measuring = [i for i, example in enumerate(examples) if example.image_id in kept_back]
    if len(measuring) > most:
        chosen = generator_for(seed, "measure").choice(len(measuring), size=most, replace=False)
        measuring = [measuring[index] for index in np.sort(chosen)]
    return tuple(training), tuple(measuring)


def choose_folds(image_ids: Sequence[str], *, num_folds: int, seed: int) -> tuple[int, ...]:
    """The fold of each item, from 0: pictures in random order, dealt out one after the other.

    There are at most as many folds as pictures.
    """
    pictures = sorted(set(image_ids))
    order = generator_for(seed, "folds").permutation(len(pictures))
    fold_of = {pictures[index]: place % num_folds for place, index in enumerate(order)}
    return tuple(fold_of[picture] for picture in image_ids)


def require_pictures(image_ids: Sequence[str]) -> None:
    """Returns when there is a picture to ask about and another one to demonstrate with.

    Raises:
        InvalidDatasetError: There are fewer than two.
    """
    found = len(set(image_ids))
    if found < 2:  # noqa: PLR2004 - see above
        raise InvalidDatasetError(
            f"Too few pictures to train on: wanted at least 2, found {found}",
            details={"wanted": 2, "found": found},
        )


def choose_queries(
    features: Float[np.ndarray, "items width"],
    image_ids: Sequence[str],
    *,
    num_queries: int,
    seed: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Queries that cover the task, and the support set that is left.

    K-means groups the features; the item nearest each centre becomes a query. Pictures of queries
    are taken out of the support set, and at most half of the pictures become queries, so that
    demonstrations stay varied.

    Returns:
        Item numbers of queries and of support items, each ascending.

    Raises:
        InvalidDatasetError: There are fewer than two pictures.

    Source: M2IV, arXiv 2504.04633, section 3 (K-means query set).
    """
    require_pictures(image_ids)
    pictures = set(image_ids)
    generator = generator_for(seed, "queries")
    wanted = min(num_queries, len(features) // 2 or 1)
    candidates = np.arange(len(features))
    if len(candidates) > _MOST_CANDIDATES * wanted:
        size = _MOST_CANDIDATES * wanted
        candidates = np.sort(generator.choice(candidates, size=size, replace=False))
    points = np.ascontiguousarray(features[candidates], dtype=np.float32)
    centres = k_means(points, wanted, generator=generator)
    central = candidates[nearest(centres, points)]
    queries: set[int] = set()
    shown: set[str] = set()
    for item in generator.permutation(central):
        picture = image_ids[item]
        if picture in shown or len(shown) < len(pictures) // 2:
            queries.add(int(item))
            shown.add(picture)
    support = [index for index, picture in enumerate(image_ids) if picture not in shown]
    return tuple(sorted(queries)), tuple(support)


def draw_context(
    support: Sequence[int], *, shots: int, query: int, draw: int, seed: int
) -> tuple[int, ...]:
    """Demonstrations for one query: drawn without replacement, in random order.

    Draws come in pairs: an odd draw is the draw before it in another order.

    Fewer than `shots` are all taken.

    Source: M2IV, arXiv 2504.04633, section 3 (permuted copy of the order).
    """
    first = generator_for(seed, "context", query, draw - draw % 2)
    chosen = first.choice(np.asarray(support), size=min(shots, len(support)), replace=False)
    if draw % 2:
        chosen = generator_for(seed, "order", query, draw).permutation(chosen)
    return tuple(int(item) for item in chosen)


def nearest(
    points: Float[np.ndarray, "points width"], others: Float[np.ndarray, "others width"]
) -> Int64[np.ndarray, " points"]:
    """Which of the others is nearest to each point, the first of equals.

    Points are taken some at a time, so that memory stays small however many there are.
    """
    offsets = 0.5 * (others**2).sum(1)
    size = max(1, _MOST_PRODUCTS // len(others))
    found: Int64[np.ndarray, " points"] = np.concatenate(
        [
            (points[start : start + size] @ others.T - offsets).argmax(1)
            for start in range(0, len(points), size)
        ]
    )
    return found


def k_means(
    points: Float[np.ndarray, "items width"], num_centres: int, *, generator: np.random.Generator
) -> Float[np.ndarray, "centres width"]:
    """Centres of groups of points, by Lloyd's iterations from distinct random points.

    An empty group keeps its last centre.
    """
    start = generator.choice(len(points), size=num_centres, replace=False)
    centres = points[np.sort(start)].copy()
    for _ in range(_ITERATIONS):
        group = nearest(points, centres)
        counts = np.bincount(group, minlength=num_centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, group, points)
        filled = counts > 0
        moved = np.where(filled[:, None], sums / np.maximum(counts, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved.astype(points.dtype)
    return centres
