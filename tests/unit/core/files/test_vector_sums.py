import numpy as np

from app.core.vectors.tensors import VectorTensors, weighted_sum


def part(seed: int) -> VectorTensors:
    rng = np.random.default_rng(seed)
    return VectorTensors(
        attention_vectors=rng.normal(size=(3, 8)).astype(np.float32),
        mlp_vectors=rng.normal(size=(3, 8)).astype(np.float32),
        attention_weights=rng.normal(size=3).astype(np.float32),
        mlp_weights=rng.normal(size=3).astype(np.float32),
    )


def test_shifts_are_summed_not_vectors_and_weights_apart() -> None:
    parts = [part(1), part(2)]
    found = weighted_sum(parts, weights=[0.25, -2.0])
    wanted = parts[0].shift() * 0.25 - parts[1].shift() * 2.0
    np.testing.assert_allclose(found.shift(), wanted, rtol=1e-6, atol=1e-6)
    assert found.attention_weights.tolist() == found.mlp_weights.tolist() == [1.0] * 3
    assert found.shift().dtype == np.float32


def test_a_part_alone_with_a_weight_of_1_keeps_its_shift_to_the_bit() -> None:
    assert (weighted_sum([part(1)], weights=[1.0]).shift() == part(1).shift()).all()


def test_the_sum_does_not_depend_on_how_small_parts_follow_a_large_one() -> None:
    large, small = part(1), part(2)
    weights = [1e4, *[1e-4] * 64]
    found = weighted_sum([large, *[small] * 64], weights=weights)
    backwards = weighted_sum([*[small] * 64, large], weights=weights[::-1])
    assert (found.shift() == backwards.shift()).all()
