"""What a check of a data set tells; loads nothing that reads data sets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from app.core.errors import JSON


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What a data set was found to be.

    Pictures are counted by what they show; `bad_rows` has the places of the first rows that cannot
    be used, with the reasons.
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
