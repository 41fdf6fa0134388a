"""How far vectors move the first token, as receipts tell it."""

import math

import pytest
import torch

from app.rpc.generation import SamplingParams
from app.worker.engine.sequence import Sequence
from app.worker.serving.responses import first_token_divergence


def answered(*probabilities: float) -> Sequence:
    """A sequence whose first token had this distribution."""
    sequence = Sequence(
        id="one",
        inputs={"input_ids": torch.ones(1, 1, dtype=torch.long)},
        sampling=SamplingParams(max_tokens=1),
    )
    sequence.first_log_probabilities = torch.tensor(probabilities).log()
    return sequence


def test_tokens_that_a_backbone_never_says_do_not_hide_what_the_others_do() -> None:
    found = first_token_divergence(answered(0.5, 0.5, 0.0), answered(0.25, 0.75, 0.0))
    assert found == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)
    assert first_token_divergence(answered(0.4, 0.6), answered(0.4, 0.6)) == 0.0
