"""Which workers serve which backbones."""

from collections.abc import Sequence

from app.core.errors import IncompatibleBackboneError, InvalidInputError
from app.rpc.messages import HealthResponse


def backbone_for(fingerprints: Sequence[str], serving: Sequence[HealthResponse]) -> HealthResponse:
    """The worker whose backbone fits all of the vectors, or the only one when there are none.

    Raises:
        InvalidInputError: There are no vectors and several backbones.
        IncompatibleBackboneError: The vectors differ, or no worker serves their backbone.
    """
    found = sorted(set(fingerprints))
    served = {health.backbone.fingerprint: health for health in reversed(serving)}
    if not found and len(served) == 1:
        return serving[0]
    if not found:
        raise _not_one(list(served.values()), found="none")
    if len(found) == 1 and found[0] in served:
        return served[found[0]]
    names = {one: f"{health.backbone.name} ({one[:12]})" for one, health in served.items()}
    wanted = sorted(served)
    expected = " or ".join(names[one] for one in wanted)
    if len(found) > 1:
        expected = "one backbone for vectors and answer"
    raise IncompatibleBackboneError(
        f"Wanted {expected}, found {' and '.join(names.get(one, one[:12]) for one in found)}",
        details={"wanted": wanted, "found": found},
    )


def serving_as(backbone: str, serving: Sequence[HealthResponse]) -> HealthResponse:
    """The worker whose backbone is called so, or has this fingerprint.

    Raises:
        InvalidInputError: Several are called so.
        IncompatibleBackboneError: None is.
    """
    served = {health.backbone.fingerprint: health for health in reversed(serving)}
    if backbone in served:
        return served[backbone]
    named = [health for health in served.values() if health.backbone.name == backbone]
    if len(named) == 1:
        return named[0]
    if named:
        raise _not_one(named, found=backbone)
    wanted = sorted(health.backbone.name for health in served.values())
    raise IncompatibleBackboneError(
        f"Wanted one of the backbones {', '.join(wanted)}, found {backbone[:64]}",
        details={"wanted": wanted, "found": backbone[:64]},
    )


def _not_one(served: Sequence[HealthResponse], *, found: str) -> InvalidInputError:
    wanted = {health.backbone.fingerprint: health.backbone.name for health in served}
    return InvalidInputError(
        "Several backbones are served: wanted the name or fingerprint of one in `backbone`, "
        f"found {found[:64]}; there are "
        + ", ".join(f"{name} ({fingerprint})" for fingerprint, name in sorted(wanted.items())),
        details={"param": "backbone", "wanted": wanted},
    )
