import gc

from app.core.settings import Settings
from app.worker.process import _load


def test_garbage_is_looked_for_once_a_backbone_is_loaded() -> None:
    # As the command leaves it while it imports.
    gc.disable()
    try:
        assert _load(Settings(backbone="pocket")).name == "pocket"
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
