"""Parts of a data set: which one is meant where it has several.

Knows names and counts only. Rows that name no split belong to `train` where others name one, and to
whichever is asked for where none does.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from app.core.errors import InvalidDatasetError

TRAIN: Final = "train"
TEST: Final = "test"
_TRAINING: Final = (TRAIN, "training")


def choose_split(
    splits: Mapping[str, int], wanted: str | None = None, *, usual: Sequence[str] = _TRAINING
) -> str | None:
    """The split that is read, or None where the rows name none.

    `wanted` is a name in any case; None takes the `usual` one, or the only one.

    Raises:
        InvalidDatasetError: There is no such split, or several and no usual one.
    """
    if not splits:
        return None
    names = usual if wanted is None else (wanted.casefold(),)
    found = [name for name in splits if name.casefold() in names]
    if wanted in splits:
        return wanted
    if len(found) == 1:
        return found[0]
    if wanted is None and len(splits) == 1:
        return next(iter(splits))
    listed = ", ".join(f"{name} ({count})" for name, count in list(splits.items())[:20])
    asked = "wanted one by its name" if wanted is None else f"wanted {wanted}"
    raise InvalidDatasetError(
        f"Which split of the data set: {asked}, found {listed}",
        details={"splits": dict(list(splits.items())[:20])},
    )
