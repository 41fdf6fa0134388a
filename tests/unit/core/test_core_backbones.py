import pytest

from app.core.backbones import require_same_backbone
from app.core.errors import IncompatibleBackboneError


def test_another_backbone_is_refused_with_both_fingerprints() -> None:
    require_same_backbone(wanted="a" * 64, found="a" * 64)
    with pytest.raises(IncompatibleBackboneError) as caught:
        require_same_backbone(wanted="a" * 64, found="b" * 64)
    assert caught.value.details == {"wanted": "a" * 64, "found": "b" * 64}
