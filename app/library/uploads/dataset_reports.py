"""What a check of a data set tells; loads nothing that reads data sets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from app.core.errors import JSON


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What a data set was found to be.

    Attributes:
        layout: What was recognised.
        num_items: Rows that are kept.
        num_images: Different pictures, by what they show.
        num_text_only: Items without a picture.
        num_answers: Different answers.
        splits: Items by the split they name; empty when none does.
        num_skipped: Rows that are left out.
        bad_rows: The first rows that cannot be used: their places and why.
        notes: What else somebody who trains on it may want to know.
    """

    layout: str
    num_items: int
    num_images: int
    num_text_only: int
    num_answers: int
    splits: Mapping[str, int]
    num_skipped: int = 0
    bad_rows: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, JSON]:
        """The report in JSON values."""
        return {**asdict(self), "bad_rows": [dict(row) for row in self.bad_rows]}
