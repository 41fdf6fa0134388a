"""One item of a visual question answering task, and an episode: items that demonstrate another."""

from collections import Counter
from dataclasses import dataclass

from app.core.errors import InvalidDatasetError
from app.core.pictures import Picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """A question, usually about a picture, with the answers people gave.

    Attributes:
        image: The encoded picture; None for an item of text alone.
        answers: At least one accepted answer; several annotators may repeat each other.
        image_id: Equal for examples that show the same picture, so that splits can keep pictures
            apart.
        others: Further pictures that the question is about, behind the first.
    """

    image: Picture | None
    question: str
    answers: tuple[str, ...]
    image_id: str
    id: str
    others: tuple[Picture, ...] = ()

    def __post_init__(self) -> None:
        """Refuses an item nothing can be learnt from.

        Raises:
            InvalidDatasetError: There is no question or no answer.
        """
        if not self.question.strip():
            raise InvalidDatasetError(
                f"Item {self.id}: wanted a question, found none", details={"item": self.id}
            )
        if not any(answer.strip() for answer in self.answers):
            raise InvalidDatasetError(
                f"Item {self.id}: wanted an answer, found none", details={"item": self.id}
            )

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Every picture, in order."""
        return self.others if self.image is None else (self.image, *self.others)

    @property
    def answer(self) -> str:
        """The answer given most often, the earliest of them when several tie."""
        counts = Counter(answer.strip() for answer in self.answers if answer.strip())
        return counts.most_common(1)[0][0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """A query with its demonstrations, the solved examples that stand before it; zero or more."""

    query: Example
    context: tuple[Example, ...] = ()
