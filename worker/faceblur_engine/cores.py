"""How many cores this process may use.

``os.cpu_count()`` is the machine's; a container or a batch system often grants less, and twice as many threads as
cores only make every picture slower and memory larger.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def granted_cores(root: Path = Path("/")) -> int:
    """Return the cores that the affinity mask and the cgroups (v1 and v2) grant, at least 1.

    A share of a core counts as one: work that is throttled a little is done sooner than work on a core less.

    Args:
        root: Where ``proc`` and ``sys`` are looked for.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """The quotas, in cores, of this process's cgroup and of each of its parents."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Without a controller it is v2. In a container the path may be the host's: then only the mount's top exists.
        mount = root / "sys/fs/cgroup" / controllers
        for group in [Path(path.lstrip("/")), *Path(path.lstrip("/")).parents]:
            quota = _quota(mount / group, version=1 if controllers else 2)
            if quota:
                quotas.append(quota)
    return quotas


def _quota(group: Path, version: int) -> float | None:
    try:
        if version == 2:
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
