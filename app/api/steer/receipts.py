"""The check that what was asked for is what was done: never a silent unsteered answer."""

import math
from collections.abc import Sequence
from typing import Final, Literal

from app.api.steer.vector_selection import ChosenVector
from app.core.backbones import BackboneDescription
from app.core.errors import SteeringError
from app.rpc.generation import Receipt

# Rounding alone leaves less of what cancels out.
LEAST_DOSE: Final = 1e-6
_STRENGTH_TOLERANCE: Final = 1e-6


def verify_receipt(
    receipt: Receipt, *, vectors: Sequence[ChosenVector], backbone: BackboneDescription
) -> None:
    """Returns when the worker's receipt shows exactly what was asked for.

    Every asked vector is there with its digest and strength and no other; in the forward that hit
    the fewest sites, all sites of the backbone were hit.

    Raises:
        SteeringError: It does not; the answer must not be given.
    """
    wanted = sorted((use.record.sha256, use.strength) for use in vectors)
    found = sorted((use.sha256, use.strength) for use in receipt.vectors)
    if not _are_same(wanted, found):
        raise SteeringError(
            f"Wanted {len(wanted)} vectors applied, the receipt shows {len(found)} or others",
            details={
                "wanted": [digest for digest, _ in wanted],
                "found": [digest for digest, _ in found],
            },
        )
    if not vectors:
        return
    num_sites = backbone.num_sites
    is_complete = receipt.sites_hit == receipt.sites_expected == num_sites
    if not is_complete or receipt.num_forwards < 1:
        raise SteeringError(
            f"Wanted {num_sites} sites shifted in every forward, found {receipt.sites_hit} "
            f"of {receipt.sites_expected} in {receipt.num_forwards} forwards",
            details={
                "wanted": num_sites,
                "found": receipt.sites_hit,
                "num_forwards": receipt.num_forwards,
            },
        )


def effect_of(strength: float, receipt: Receipt) -> Literal["shift", "none"]:
    """Whether a vector of this strength moved anything: vectors may be zero or cancel out."""
    is_nothing = receipt.dose is not None and receipt.dose < LEAST_DOSE
    return "none" if is_nothing or strength == 0 else "shift"


def _are_same(wanted: Sequence[tuple[str, float]], found: Sequence[tuple[str, float]]) -> bool:
    return len(wanted) == len(found) and all(
        digest == other and math.isclose(strength, done, abs_tol=_STRENGTH_TOLERANCE)
        for (digest, strength), (other, done) in zip(wanted, found, strict=True)
    )
