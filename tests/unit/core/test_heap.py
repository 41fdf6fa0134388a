import gc

from app.core.heap import keep_out_of_collections


def test_what_exists_is_not_walked_through_again() -> None:
    before = gc.get_freeze_count()
    kept: list[object] = []
    kept.append(kept)
    keep_out_of_collections()
    try:
        assert gc.get_freeze_count() > before
        assert not any(one is kept for one in gc.get_objects())
    finally:
        gc.unfreeze()
