"""How many cores this process may use, which in a container are fewer than the machine has."""

import os
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def usable() -> int:
    """Returns how many cores this process may keep busy, at least 1.

    These are the cores that it may run on, within the share of their time that its control groups
    allow (cgroups(7)): of 1.5 cores it is one, since a thread beyond the share is stopped for most
    of a tenth of a second.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, int(min(allowed, share(_CGROUPS, _OWN_CGROUPS))))


def share(cgroups: Path, own_cgroups: Path) -> float:
    """Returns the cores that control groups allow at once, infinity without a limit.

    Args:
        cgroups: Where they are mounted.
        own_cgroups: File that lists those of the process, `/proc/self/cgroup`.
    """
    shares = [float("inf")]
    lines = own_cgroups.read_text().splitlines() if own_cgroups.exists() else []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if not controllers:
            mounts = [cgroups, cgroups / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [cgroups / "cpu", cgroups / controllers]
        else:
            continue
        # A container may see its own group as the root, or under the name that the host gave it.
        inside = PurePosixPath(own.lstrip("/"))
        for mount in mounts:
            shares += [_share_of(mount / folder) for folder in (inside, *inside.parents)]
    return min(shares)


def _share_of(group: Path) -> float:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            texts = " ".join((group / name).read_text() for name in names).split()
        except OSError:  # There is no such group here, or it is of the other version.
            continue
        if len(texts) == 2 and texts[0].isdecimal() and int(texts[1]) > 0:
            return int(texts[0]) / int(texts[1])  # Otherwise `max` or -1, which is no limit.
    return float("inf")
