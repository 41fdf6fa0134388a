"""A script that reads an uploaded file to its end, and writes the data set that it holds.

It runs as a process of its own with a limit on memory and time, because a small file can unfold
into any number of bytes (compression, dictionaries that repeat one value) and because a reader of
hostile bytes may crash. It prints one JSON object: the report, or the reason for the refusal. It
ends when its standard input does, which is when nobody waits for it any more.
"""

import json
import os
import resource
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, Final

from pyarrow import ArrowException

from app.core.errors import TooLargeError, VLibraryError, is_out_of_space
from app.core.pictures import PictureLimits
from app.library.uploads.dataset_conversion import convert
from vlibrary_client.layouts.items import with_question
from vlibrary_client.layouts.sources import open_upload

CPU_SECONDS: Final = 3600


def _limit_resources(memory_bytes: int) -> None:
    status = Path("/proc/self/status").read_text() if sys.platform == "linux" else ""
    used_kib = next(
        (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")), 0
    )
    most = used_kib * 1024 + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_input() -> None:
    # It is a pipe whose other end closes however the process dies that has it.
    os.read(0, 1)
    os._exit(1)


def verdict_on(order: dict[str, Any]) -> dict[str, Any]:
    """The report on a file, or why it is refused.

    The order has `source` and `target` as paths, `columns`, `question`, `limits` and `options`.
    """
    try:
        columns = with_question(order["columns"], order["question"])
        report = convert(
            partial(open_upload, Path(order["source"]), columns=columns),
            Path(order["target"]),
            limits=PictureLimits(**order["limits"]),
            **order["options"],
        )
    except MemoryError:  # Arrow's own is one of its exceptions as well.
        return {"refused": "Not a data set: it needs too much memory", "details": {}}
    except TooLargeError as error:
        return {"is_large": error.message}
    except (VLibraryError, OSError, ArrowException) as error:
        if is_out_of_space(error):
            return {"is_full": True}
        if not isinstance(error, VLibraryError):
            raise
        return {"refused": error.message, "details": error.details}
    return {"report": report.as_json()}


def main(order: str, memory_bytes: str) -> None:
    """Prints the verdict on one file.

    The order is that of `verdict_on` as JSON; `memory_bytes` may be allocated beyond what the
    libraries take.
    """
    threading.Thread(target=_end_with_input, daemon=True).start()
    _limit_resources(int(memory_bytes))
    sys.stdout.write(json.dumps(verdict_on(json.loads(order))))


if __name__ == "__main__":
    main(*sys.argv[1:])
