"""The CPUs that a container may use, which libraries that count the machine's do not see."""

from pathlib import Path
from typing import Final

import torch

CONTROL_GROUP: Final = Path("/sys/fs/cgroup")


def limit_threads(group: Path = CONTROL_GROUP) -> None:
    """Leaves torch one thread for each CPU of the control group, where it has a share.

    Threads beyond it use up the share by waiting for each other. To be called on the thread that
    computes.
    """
    num_cpus = available_cpus(group)
    if num_cpus is not None and num_cpus < torch.get_num_threads():
        torch.set_num_threads(num_cpus)


def available_cpus(group: Path) -> int | None:
    """How many whole CPUs the group may use, at least 1; None without a limit."""
    version_2 = group / "cpu.max"
    version_1 = [group / "cpu" / f"cpu.cfs_{part}_us" for part in ("quota", "period")]
    files = [version_2] if version_2.exists() else version_1
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
    except OSError:
        return None
    # Without a limit the quota is "max", or -1 in version 1.
    return max(1, int(quota) // int(period)) if quota.isdecimal() else None
