import pytest
import torch

from app.core.errors import IncompatibleBackboneError, InvalidInputError
from app.method.steering.composition import combine
from app.method.steering.vectors import InContextVectors


def part(seed: int, *, hidden: int = 8) -> InContextVectors:
    generator = torch.Generator().manual_seed(seed)
    return InContextVectors(
        attention_vectors=torch.randn((3, hidden), generator=generator),
        mlp_vectors=torch.randn((3, hidden), generator=generator),
        attention_weights=torch.randn(3, generator=generator),
        mlp_weights=torch.randn(3, generator=generator),
    )


def test_shifts_are_combined_not_vectors_and_weights_apart() -> None:
    parts = [part(1), part(2)]
    wanted = parts[0].shift() * 0.25 - parts[1].shift() * 2.0
    torch.testing.assert_close(combine(parts, weights=[0.25, -2.0]).shift(), wanted)
    torch.testing.assert_close(combine(parts[:1], weights=[1.0]).shift(), parts[0].shift())


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="found 0 sets"):
        combine([], weights=[])
    with pytest.raises(InvalidInputError, match="1 weights"):
        combine([part(1), part(2)], weights=[1.0])
    with pytest.raises(IncompatibleBackboneError, match=r"\(3, 4\), \(3, 8\)"):
        combine([part(1), part(2, hidden=4)], weights=[0.5, 0.5])
    for weight in (float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="finite weights"):
            combine([part(1), part(2)], weights=[1.0, weight])
