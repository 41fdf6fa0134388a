"""What the garbage collector walks through."""

import gc


def keep_out_of_collections() -> None:
    """Let later garbage collections pass over everything that exists now.

    Modules, classes and a backbone live as long as their process. A full collection would walk
    through all of them, and every thread would stand still meanwhile: a tenth of a second in the
    api, more in a worker. For processes that serve from here on, not for libraries.
    """
    gc.freeze()
