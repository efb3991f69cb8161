"""Facts of the machine, from /proc and /sys: file systems, cgroups, memory. Functions of any thread; they only read."""

import os
from collections.abc import Iterator
from pathlib import Path


def existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def file_system(path: Path, mounts: str | None = None) -> str:
    """The kind of file system that the path is on, by /proc/self/mountinfo."""
    text = read("/proc/self/mountinfo") or "" if mounts is None else mounts
    best, kind = -1, "unknown"
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        point = head.split()[4].replace("\\040", " ")
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= best:
            best, kind = len(point), tail.split()[0]
    return kind


def cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> float | None:
    """Cores that the cgroup grants (v2, else v1), the least of those on the way up; None without a limit."""
    granted = []
    for directory in _cgroups(root, "cpu", own):
        text = read(directory / "cpu.max")
        if text is not None:
            quota, period = text.split()
        else:
            quota = read(directory / "cpu.cfs_quota_us") or "-1"
            period = read(directory / "cpu.cfs_period_us") or "100000"
        if quota not in {"max", "-1"}:
            granted.append(int(quota) / int(period))
    return min(granted, default=None)


def usable_cores() -> float:
    """Cores that this process may use at once: those that it may run on, or less by its cgroup's quota."""
    allowed, granted = len(os.sched_getaffinity(0)), cgroup_cores()
    return allowed if granted is None else min(allowed, granted)


def default_shards() -> int:
    """Shards where none are set: a core is left to the other threads, and one shard there is always. At most 64."""
    return min(64, max(1, int(usable_cores()) - 1))


def cgroup_memory(root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> int | None:
    """Bytes that the cgroup grants (v2, else v1), the least of those on the way up; None without a limit."""
    granted = []
    for directory in _cgroups(root, "memory", own):
        text = read(directory / "memory.max") or read(directory / "memory.limit_in_bytes") or "max"
        if text != "max" and int(text) < 1 << 60:  # v1 writes "no limit" as a huge number
            granted.append(int(text))
    return min(granted, default=None)


def _cgroups(root: Path, controller: str, own: str | None) -> Iterator[Path]:
    """Directories of this process's cgroup and those above it, v2 first."""
    for line in (read("/proc/self/cgroup") or "" if own is None else own).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base = root
        elif controller in controllers.split(","):
            base = root / controllers if (root / controllers).is_dir() else root / controller
        else:
            continue
        here = base / path.lstrip("/")
        while True:
            if here.is_dir():
                yield here
            if here == base:
                break
            here = here.parent


def cpu_flags() -> set[str]:
    """The first processor's flags, as /proc/cpuinfo has them; empty where it has none."""
    for line in (read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def meminfo(name: str) -> int:
    """Bytes of one line of /proc/meminfo; 0 when it is not there."""
    for line in (read("/proc/meminfo") or "").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    return 0


def read(path: str | Path) -> str | None:
    """The text of a small file without blanks around it; None when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None
