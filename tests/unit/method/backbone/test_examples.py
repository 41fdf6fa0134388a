import pytest
from PIL import Image

from app.core.errors import InvalidDatasetError
from app.core.pictures import Picture
from app.method.backbone.examples import Example


def example(*answers: str, question: str = "what is it?") -> Example:
    image = Picture.of(Image.new("RGB", (4, 4)))
    return Example(image=image, question=question, answers=answers, image_id="i", id="e")


def test_the_answer_given_most_often_counts() -> None:
    assert example("cat", "dog", "dog", "bird").answer == "dog"
    assert example("cat", "dog").answer == "cat"
    assert example(" dog", "cat", "dog ").answer == "dog"
    assert example("", "cat").answer == "cat"


@pytest.mark.parametrize("answers", [(), ("",), (" ",)])
def test_an_item_without_an_answer_is_refused(answers: tuple[str, ...]) -> None:
    with pytest.raises(InvalidDatasetError, match="wanted an answer"):
        example(*answers)


def test_an_item_without_a_question_is_refused() -> None:
    with pytest.raises(InvalidDatasetError, match="wanted a question"):
        example("cat", question="  ")
