"""Whether something failed because no space was left, which goes away by itself."""

import errno
from typing import Final

_OUT_OF_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# Libraries that write files themselves tell it in words alone.
_WORDS: Final = ("no space left on device", "disk quota exceeded", "os error 28", "errno 28")


def is_out_of_space(error: BaseException) -> bool:
    """Whether the error, or one that it came of, tells of a full disk or an exhausted quota."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno in _OUT_OF_SPACE:
            return True
        if any(words in str(current).lower() for words in _WORDS):
            return True
        current = current.__cause__ or current.__context__
    return False
