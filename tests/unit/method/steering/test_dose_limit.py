"""Whoever asks for too strong a dose is told what would be taken."""

import re
from functools import partial

import pytest
import torch

from app.core.errors import InvalidInputError
from app.method.steering.dose import check_dose

check = partial(check_dose, norms=torch.ones(2), highest=4.0)
SHIFT = torch.ones(2, 2, 8) / 3


@pytest.mark.parametrize("strength", [10.0, -10.0, 7.3])
def test_the_largest_strength_that_is_told_is_taken(strength: float) -> None:
    with pytest.raises(InvalidInputError, match="the largest strength is") as caught:
        check(SHIFT * strength, strength=strength)
    largest = float(re.findall(r"[\d.]+$", caught.value.message)[0])
    assert largest < abs(strength)
    assert check(SHIFT * largest) <= 4.0
    with pytest.raises(InvalidInputError):
        check(SHIFT * (largest * 1.02))


def test_of_several_the_share_that_is_taken_is_told() -> None:
    with pytest.raises(InvalidInputError, match="lower the strengths to") as caught:
        check(SHIFT * 10)
    share = float(re.findall(r"to ([\d.]+) of", caught.value.message)[0])
    assert check(SHIFT * 10 * share) <= 4.0
