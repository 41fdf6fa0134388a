"""Layers on several devices: every token is that of the same backbone on one.

The devices are stand-ins, which refuse what real ones refuse.
"""

from collections.abc import Callable
from typing import Any

import pytest
from accelerate.utils import send_to_device

from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from tests.fakes.models.alone import RequestSpec, answer_alone, bare_backbone
from tests.fakes.models.devices import stand_ins
from tests.fakes.models.family_configs import FAMILIES
from tests.fakes.models.spread import spread_backbone

# Steered and not, with a picture, with its features and without one, drawn and not.
SPECS = [
    RequestSpec(seed=1, vector=1, max_new_tokens=4),
    RequestSpec(seed=2, length=11, shows_image=False, max_new_tokens=3),
    RequestSpec(
        seed=3, length=9, is_known=True, vector=2, strength=-2.0, temperature=0.0, max_new_tokens=4
    ),
    RequestSpec(seed=4, length=14, shows_image=False, vector=3, max_new_tokens=5),
    RequestSpec(seed=5, length=6, is_known=True, vector=1, max_new_tokens=3),
]


def answers(family: str) -> tuple[list[Sequence], int]:
    """What the requests get, of which some wait for a row, and the sites of a pass."""
    with stand_ins():
        backbone = spread_backbone(bare_backbone(family))
        engine = Engine(backbone, max_rows=3)
        runner: Any = engine._runner
        # A pass that fails would be made again row by row.
        runner.prefill, runner.decode = _unfailing(runner.prefill), _unfailing(runner.decode)
        made = []
        for place, spec in enumerate(SPECS):
            shift = spec.shift(backbone)
            made.append(
                Sequence(
                    id=str(place),
                    inputs=send_to_device(spec.served(family), backbone.device),
                    sampling=spec.sampling(),
                    shift=None if shift is None else shift.to(backbone.device),
                )
            )
            engine.add(made[-1])
        try:
            while engine.has_work:
                engine.step()
        finally:
            engine.close()
    return made, backbone.description.num_sites


def _unfailing(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def checked(rows: Any) -> Any:  # noqa: ANN401 - of either runner
        try:
            return run(rows)
        except RuntimeError as error:
            pytest.fail(str(error))

    return checked


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_token_is_that_of_one_device(family: str) -> None:
    found, num_sites = answers(family)
    for spec, sequence in zip(SPECS, found, strict=True):
        assert sequence.error is None
        assert tuple(sequence.token_ids) == answer_alone(family, None, spec)
        assert sequence.sites_hit == (num_sites if spec.vector else 0)
