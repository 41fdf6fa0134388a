import pytest
import torch

from app.core.errors import IncompatibleBackboneError, InvalidInputError
from app.method.steering.composition import combine, loss_weighted_mean, mean
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
    torch.testing.assert_close(mean(parts).shift(), (parts[0].shift() + parts[1].shift()) / 2)
    torch.testing.assert_close(mean(parts[:1]).shift(), parts[0].shift())


def test_lower_losses_count_more() -> None:
    parts = [part(1), part(2)]
    even = loss_weighted_mean(parts, losses=[0.7, 0.7]).shift()
    torch.testing.assert_close(even, mean(parts).shift())
    alone = loss_weighted_mean(parts, losses=[0.1, 5.0], temperature=0.01).shift()
    torch.testing.assert_close(alone, parts[0].shift())


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="found 0 sets"):
        mean([])
    with pytest.raises(InvalidInputError, match="1 weights"):
        combine([part(1), part(2)], weights=[1.0])
    with pytest.raises(InvalidInputError, match="finite losses"):
        loss_weighted_mean([part(1)], losses=[float("nan")])
    with pytest.raises(IncompatibleBackboneError, match=r"\(3, 4\), \(3, 8\)"):
        mean([part(1), part(2, hidden=4)])
