"""What an exception out of the backbone means for the request that met it."""

import traceback
from typing import Final

import torch

from app.core.errors import (
    OutOfDeviceMemoryError,
    UnavailableError,
    VLibraryError,
    WorkerUnavailableError,
)
from app.core.telemetry.logs import get_logger

RETRY_AFTER_SECONDS: Final = 2.0
_RESTART_SECONDS: Final = 5.0
_CPU_ALLOCATOR_MESSAGE: Final = "can't allocate memory"

log = get_logger(__name__)


def library_error(error: BaseException) -> VLibraryError:
    """The library's error for what happened, with the original as its cause.

    The message of a foreign exception is not repeated: it may hold parts of a prompt.
    """
    if isinstance(error, VLibraryError):
        return error
    found: VLibraryError
    if is_out_of_memory(error):
        found = OutOfDeviceMemoryError(
            "the device has no room for this request", retry_after_seconds=RETRY_AFTER_SECONDS
        )
    else:
        found = VLibraryError(f"the backbone failed on this request: {type(error).__name__}")
    found.__cause__ = error
    return found


def forget_frames(error: BaseException) -> None:
    """Let go of what the frames of a failed pass hold, which may be much of the device's memory.

    To be called once the error is logged: nobody can look into its frames afterwards.
    """
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, after which everything else still works."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_ALLOCATOR_MESSAGE in str(error)


def is_fatal(error: BaseException) -> bool:
    """Whether the device's context is lost for the rest of the process."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def public_error(error: Exception) -> VLibraryError:
    """What may be told of a failure; what may not goes to the log."""
    found = library_error(error)
    if found is not error:
        log.warning("work failed", action="device.fail", exc_info=error)
        forget_frames(error)
    return found


def device_lost() -> UnavailableError:
    """For whoever has begun: another worker must not take it up, it may be what broke this one."""
    return UnavailableError(
        "the worker's device was lost during the request", retry_after_seconds=_RESTART_SECONDS
    )


def device_shut_down() -> WorkerUnavailableError:
    """For whoever has not begun: another worker may take it up."""
    return WorkerUnavailableError(
        "the worker's device is shut down", retry_after_seconds=_RESTART_SECONDS
    )
