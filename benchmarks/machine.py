"""What a result is worth nothing without: the machine, the tools' versions, the commit."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _first_line(*command: str) -> str | None:
    """First line that a command prints, or None where it cannot run."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout or done.stderr).split("\n")[0]


def _text(path: str) -> str | None:
    """A small file's text, or None where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _cpu_model() -> str:
    """The CPU as the kernel names it."""
    for line in (_text("/proc/cpuinfo") or "").split("\n"):
        if line.startswith(("model name", "CPU part")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def commit() -> str:
    """The commit, with -dirty where the tree differs from it, results aside; `unknown` outside a checkout."""
    name = _first_line("git", "rev-parse", "--short=12", "HEAD")
    if not name:
        return "unknown"
    return name + ("-dirty" if _first_line("git", "status", "--porcelain", "--", ":/", ":!/benchmarks/results") else "")


def describe() -> dict[str, object]:
    """Everything about where a run was made, ready for JSON."""
    modules = {}
    for module in ("numpy", "llvmlite", "Cython", "bitactor"):
        try:
            modules[module] = metadata.version(module)
        except metadata.PackageNotFoundError:
            modules[module] = None
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "l2_bytes": _text("/sys/devices/system/cpu/cpu0/cache/index2/size"),
        "kernel": platform.release(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "transparent_hugepages": _text("/sys/kernel/mm/transparent_hugepage/enabled"),
        "clocksource": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "load_at_start": os.getloadavg(),
        "compiler": _first_line(os.environ.get("CC", "cc"), "--version"),
        "python": sys.version,
        "modules": modules,
        "rust": _first_line("cargo", "--version"),
        "java": _first_line("java", "-version"),
    }
