"""What `bitactor doctor` looks at: each check is a function of the settings that gives findings.

They read, and write one file in data_dir for the time of the sync measurement; none takes longer than about a second,
but for NATS servers that do not answer (nats_checks).
"""

import ctypes
import errno
import os
import resource
import socket
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

from bitactor.cli.finding import Finding
from bitactor.cli.nats_checks import servers
from bitactor.config import Settings
from bitactor.config.units import of_bytes
from bitactor.host import (
    cgroup_cores,
    cgroup_memory,
    cpu_flags,
    default_shards,
    existing,
    file_system,
    meminfo,
    read,
    usable_cores,
)

SYNC_S_MAX: Final = 1.0
SYNCS_MAX: Final = 200
SYNC_BLOCK: Final = bytes(4096)
SYNC_SLOW_S: Final = 0.010
SYNC_DOUBTFUL_S: Final = 15e-6  # faster than what a disk behind a bus can answer
NETWORK_KINDS: Final = ("nfs", "cifs", "smb", "ceph", "glusterfs", "lustre", "9p", "afs", "fuse.sshfs", "virtiofs")
MEMORY_KINDS: Final = ("tmpfs", "ramfs")
FILES_BESIDE_CONNECTIONS: Final = 256
MEMORY_BYTES_MIN: Final = 512 << 20


def checks() -> list[Callable[[Settings], Iterator[Finding]]]:
    """All checks, in the order in which they are shown."""
    return [
        clock, time_sync, cores, memory, open_files, locked_memory, huge_pages, packages,
        cache, directory, disk_sync, disk_space, ports, certificate, randomness, servers,
    ]  # fmt: skip


def clock(_: Settings) -> Iterator[Finding]:
    """Reading the time costs tens of nanoseconds with the TSC and a system call, or a device, without."""
    source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown"
    begin = time.perf_counter_ns()
    for _unused in range(1000):
        time.monotonic_ns()
    cost = (time.perf_counter_ns() - begin) / 1000
    found = f"{source}, {cost:.0f} ns a reading"
    if source in {"hpet", "acpi_pm", "refined-jiffies", "jiffies"}:
        yield Finding("clock source", "warn", found, "every wait reads it: boot with a stable TSC (clocksource=tsc)")
    else:
        yield Finding("clock source", "ok", found)
    flags = cpu_flags()
    if flags and not {"constant_tsc", "nonstop_tsc"} <= flags:
        yield Finding("tick counter", "warn", "not constant", "ticks of a budget do not tell time on this machine")
    else:
        from bitactor._core._codec import ticks_hz

        yield Finding("tick counter", "ok", f"{ticks_hz() / 1e9:.2f} G ticks a second")


def time_sync(_: Settings) -> Iterator[Finding]:
    """Records carry wall time; lag and expiry are told from it."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return
    if state == 5:  # TIME_ERROR
        yield Finding("time", "warn", "the kernel's clock is not synchronised", "run chrony or systemd-timesyncd")
    elif state >= 0:
        yield Finding("time", "ok", "the kernel's clock is synchronised")


def cores(settings: Settings) -> Iterator[Finding]:
    """Cores that this process may use, and the share of them that its cgroup has."""
    have, quota = usable_cores(), cgroup_cores()
    found = f"{len(os.sched_getaffinity(0))} usable" + (f", {quota:g} by cgroup" if quota is not None else "")
    threads = 2 + (settings.engine.shards if settings.engine.shards is not None else default_shards())
    if have < 1:
        yield Finding("cpu", "warn", found, "less than a core: waits park and acknowledgements take longer")
    elif threads > have + 1:
        yield Finding("cpu", "ok", f"{found}; {threads} busy threads share them")
    else:
        yield Finding("cpu", "ok", found)


def memory(_: Settings) -> Iterator[Finding]:
    """Memory that there is, or that the cgroup leaves."""
    free = meminfo("MemAvailable")
    limit = cgroup_memory()
    found = f"{of_bytes(free)} available" + (f", {of_bytes(limit)} by cgroup" if limit is not None else "")
    if min(free, limit if limit is not None else free) < MEMORY_BYTES_MIN:
        advice = "the service takes about 200 MiB and the state of its keys on top"
        yield Finding("memory", "warn", found, advice)
    else:
        yield Finding("memory", "ok", found)


def open_files(settings: Settings) -> Iterator[Finding]:
    """Each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections_max + FILES_BESIDE_CONNECTIONS
    found = f"{_limit(soft)} (hard limit {_limit(hard)})"
    if hard != resource.RLIM_INFINITY and hard < wanted:
        advice = f"limits.connections_max needs {wanted}: raise LimitNOFILE or ulimit -Hn, or allow fewer connections"
        yield Finding("open files", "fail", found, advice)
    elif soft != resource.RLIM_INFINITY and soft < wanted:
        yield Finding("open files", "ok", f"{found}; serve raises it to {wanted}")
    else:
        yield Finding("open files", "ok", found)


def locked_memory(_: Settings) -> Iterator[Finding]:
    """Nothing locks memory; the limit is told because people ask."""
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    found = "no limit" if soft == resource.RLIM_INFINITY else of_bytes(soft)
    yield Finding("locked memory", "ok", f"{found}; none is used")


def huge_pages(_: Settings) -> Iterator[Finding]:
    """Tables of many keys are asked for in huge pages: they halve the time of a look-up at a million keys."""
    text = read("/sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = text.partition("[")[2].partition("]")[0]
    if chosen in {"always", "madvise"}:
        yield Finding("huge pages", "ok", chosen)
    else:
        advice = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; tables of many keys are slower without"
        yield Finding("huge pages", "warn", chosen or "unknown", advice)


def packages(_: Settings) -> Iterator[Finding]:
    """What the service stands on, and SQLite's version."""
    missing = []
    for name in ("uvloop", "starlette", "uvicorn", "prometheus_client", "cryptography", "duckdb"):
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        yield Finding("packages", "fail", f"missing: {', '.join(missing)}", "pip install 'bitactor[service]'")
    else:
        yield Finding("packages", "ok", "all there")
    try:
        import apsw
    except ImportError:
        yield Finding("sqlite", "fail", "apsw is missing", "pip install 'bitactor[service]'")
        return
    version = apsw.sqlite_lib_version()
    if tuple(map(int, version.split("."))) < (3, 51, 3):
        advice = "SQLite before 3.51.3 may damage a WAL: pip install --upgrade apsw"
        yield Finding("sqlite", "fail", version, advice)
    else:
        yield Finding("sqlite", "ok", version)


def cache(_: Settings) -> Iterator[Finding]:
    """Without a directory for compiled handlers they are compiled at every start."""
    from bitactor.actors.cache import directory as cache_directory

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        path = cache_directory()
    if path is not None and os.access(path, os.W_OK):
        yield Finding("handler cache", "ok", f"{path}, private")
    elif told:
        yield Finding("handler cache", "warn", str(told[0].message), "chmod 700 it, or set BITACTOR_CACHE_DIR")
    else:
        advice = "set BITACTOR_CACHE_DIR to a directory of this user; else handlers are compiled at every start"
        yield Finding("handler cache", "warn", "none that can be written", advice)


def directory(settings: Settings) -> Iterator[Finding]:
    """Where the log lies: what kind of file system, and who may look into it."""
    if settings.log.kind == "none":
        yield Finding("data_dir", "ok", "not used: log.kind is none")
        return
    path, there = settings.data_dir, existing(settings.data_dir)
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("data_dir", "fail", f"{there} is not writable", f"chown it to user {os.geteuid()}")
        return
    kind = file_system(there)
    found = f"{path} on {kind}"
    if kind.startswith(NETWORK_KINDS):
        advice = "SQLite's WAL needs one machine's memory and true locks: use a local disk"
        yield Finding("data_dir", "fail", found, advice)
    elif kind in MEMORY_KINDS:
        yield Finding("data_dir", "warn", found, "what is there is gone with the machine's power: use a disk")
    elif kind == "overlay":
        yield Finding("data_dir", "warn", found, "a container's own layer goes with the container: mount a volume")
    else:
        yield Finding("data_dir", "ok", found)
    if path.is_dir() and path.stat().st_mode & 0o007:
        yield Finding("data_dir's mode", "warn", "others may look into it", f"chmod 750 {path}: it holds your signals")


def disk_sync(settings: Settings) -> Iterator[Finding]:
    """What an acknowledgement waits for with durability full, measured by writing and syncing blocks of 4 KiB."""
    if settings.log.kind == "none":
        return
    there = existing(settings.data_dir)
    try:
        times = sync_times(there)
    except OSError as error:
        yield Finding("disk sync", "fail", f"{there}: {error.strerror}", "data_dir must be writable")
        return
    times.sort()
    half, most = statistics.median(times), times[int(len(times) * 0.99)]
    found = f"{half * 1e3:.2f} ms (99 %: {most * 1e3:.2f} ms) for 4 KiB, {len(times)} times"
    if half > SYNC_SLOW_S:
        advice = "each acknowledgement waits that long: use a disk with a write cache that survives power loss"
        yield Finding("disk sync", "warn", found, advice)
    elif half < SYNC_DOUBTFUL_S:
        advice = "too fast for a disk: something may answer before the data is safe"
        yield Finding("disk sync", "warn", found, advice)
    else:
        yield Finding("disk sync", "ok", found)


def sync_times(directory: Path, *, seconds: float = SYNC_S_MAX, count: int = SYNCS_MAX) -> list[float]:
    """Seconds of each fdatasync behind an appended block, for at most that long and that many. OSError."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=directory, prefix=".bitactor-doctor-", buffering=0) as file:
        end = time.perf_counter() + seconds
        while len(times) < count and (not times or time.perf_counter() < end):
            begin = time.perf_counter()
            file.write(SYNC_BLOCK)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    return times


def disk_space(settings: Settings) -> Iterator[Finding]:
    """Whether the log can grow to its limit."""
    if settings.log.kind == "none":
        return
    there = os.statvfs(existing(settings.data_dir))
    free, wanted = there.f_bavail * there.f_frsize, settings.log.size_bytes_max
    used = sum(file.stat().st_size for file in settings.data_dir.rglob("*") if file.is_file())
    found = f"{of_bytes(free)} free; the log may take {of_bytes(wanted)} and has {of_bytes(used)}"
    if free + used < wanted:
        advice = "a full disk ends the service: lower log.size_bytes_max (then signals are refused) or make room"
        yield Finding("disk space", "warn", found, advice)
    else:
        yield Finding("disk space", "ok", found)


def ports(settings: Settings) -> Iterator[Finding]:
    """Whether the ports can be listened on now."""
    for name, host, port in (
        ("ingest port", settings.ingest.host, settings.ingest.port),
        ("admin port", settings.admin.host, settings.admin.port),
    ):
        problem = _why_not_listen(host, port)
        if problem is None:
            yield Finding(name, "ok", f"{host}:{port} is free")
        elif problem == errno.EADDRINUSE:
            yield Finding(name, "warn", f"{host}:{port} is in use", "by a service that runs already, or choose another")
        else:
            yield Finding(name, "fail", f"{host}:{port}: {os.strerror(problem)}", "choose an address of this machine")


def certificate(settings: Settings) -> Iterator[Finding]:
    """When the server's certificate stops being valid."""
    file = settings.tls.cert_file
    if file is None:
        return
    from bitactor.ingest.certs import expires

    days = (expires(file).timestamp() - time.time()) / 86400
    if days < 0:
        yield Finding("certificate", "fail", f"{file} expired {-days:.0f} days ago", "no client will connect: renew it")
    elif days < 14:
        yield Finding(
            "certificate", "warn", f"{file} expires in {days:.0f} days", "renew it; it is read again by itself"
        )
    else:
        yield Finding("certificate", "ok", f"{file} expires in {days:.0f} days")


def randomness(_: Settings) -> Iterator[Finding]:
    """Key tables and tokens begin with random bits."""
    try:
        os.getrandom(16, os.GRND_NONBLOCK)
    except BlockingIOError:
        yield Finding("randomness", "warn", "not ready", "the machine has just booted: the start waits for it")
    else:
        yield Finding("randomness", "ok", "ready")


def _why_not_listen(host: str, port: int) -> int | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno
    return None


def _limit(value: int) -> str:
    return "no limit" if value == resource.RLIM_INFINITY else str(value)
