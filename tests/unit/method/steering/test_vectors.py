import pytest
import torch

from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import TENSOR_NAMES, InContextVectors
from app.method.training.loop import initial_vectors


@pytest.fixture
def vectors() -> InContextVectors:
    generator = torch.Generator().manual_seed(5)
    return InContextVectors(
        attention_vectors=torch.randn((3, 8), generator=generator),
        mlp_vectors=torch.randn((3, 8), generator=generator),
        attention_weights=torch.randn(3, generator=generator),
        mlp_weights=torch.randn(3, generator=generator),
    )


def test_the_shift_is_weight_times_vector_times_strength(vectors: InContextVectors) -> None:
    shift = vectors.shift(-0.5)
    assert shift.shape == (3, 2, 8)
    for layer in range(3):
        wanted = vectors.attention_weights[layer] * vectors.attention_vectors[layer] * -0.5
        torch.testing.assert_close(shift[layer, 0], wanted)
        wanted = vectors.mlp_weights[layer] * vectors.mlp_vectors[layer] * -0.5
        torch.testing.assert_close(shift[layer, 1], wanted)
    assert not vectors.shift(0.0).any()


def test_a_file_brings_the_vectors_back_exactly(vectors: InContextVectors) -> None:
    data = encode_vector_file(
        vectors.to_tensors(), metadata={"method": "m2iv", "backbone": "f" * 64}
    )
    tensors, _ = decode_vector_file(data, num_layers=3, hidden_size=8)
    found = InContextVectors.from_tensors(tensors)
    for name in TENSOR_NAMES:
        assert torch.equal(getattr(found, name), getattr(vectors, name))
    assert found.shift().shape == (3, 2, 8)


def test_copies_are_of_their_own_memory(vectors: InContextVectors) -> None:
    vectors.scaled(1.0).mlp_weights.zero_()
    vectors.to_tensors().mlp_vectors[:] = 0.0
    assert vectors.mlp_weights.all()
    assert vectors.mlp_vectors.all()


def test_norms_are_those_of_the_shift(vectors: InContextVectors) -> None:
    lengths = vectors.shift().norm(dim=-1)
    assert vectors.to_tensors().norms()["attention"] == pytest.approx(lengths[:, 0].tolist())
    assert vectors.to_tensors().norms()["mlp"] == pytest.approx(lengths[:, 1].tolist())


def test_the_start_is_small_seeded_and_has_a_gradient(backbone: Backbone) -> None:
    norms = torch.arange(1.0, 1 + backbone.num_layers)

    def start(seed: int) -> InContextVectors:
        return initial_vectors(backbone, norms=norms, seed=seed)

    first, again, other = start(1), start(1), start(2)
    assert torch.equal(first.mlp_vectors, again.mlp_vectors)
    assert not torch.equal(first.mlp_vectors, other.mlp_vectors)
    assert first.attention_vectors.std().item() == pytest.approx(0.01, rel=0.1)
    weights = 0.3 * norms / backbone.hidden_size**0.5
    assert first.attention_weights.tolist() == pytest.approx(weights.tolist())
    leaves = {name: getattr(first, name).requires_grad_() for name in TENSOR_NAMES}
    total = InContextVectors(**leaves).shift().sum()
    assert all(gradient.any() for gradient in torch.autograd.grad(total, list(leaves.values())))
