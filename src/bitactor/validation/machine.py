"""The machine a campaign ran on, and the commit it ran. Functions of any thread; they only read, or ask git."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitactor import host


def facts() -> dict[str, Any]:
    """What a reader of figures wants to know; `name` tells machines apart without naming the host."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in (host.read("/proc/cpuinfo") or "").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = host.cgroup_memory() or host.meminfo("MemTotal")
    cores = host.usable_cores()
    system = f"{platform.system()} {platform.release()}"
    short = hashlib.blake2b(f"{processor} {cores} {memory}".encode(), digest_size=3).hexdigest()
    return {
        "name": f"{processor}, {cores:g} cores, {memory / 2**30:.0f} GiB ({short})",
        "cores": cores,
        "memory_bytes": memory,
        "system": system,
        "python": platform.python_version(),
        "bitactor": version("bitactor"),
        "temporary_files_on": host.file_system(Path(os.environ.get("TMPDIR", "/tmp"))),  # noqa: S108
        "load_before": round(os.getloadavg()[0], 2),
    }


def checkout() -> Path | None:
    """The source tree around the working directory, or None: what needs it is then not run."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / "core" / "meson.build").is_file() and (directory / "src" / "bitactor").is_dir():
            return directory
    return None


def commit() -> str:
    """The commit of the checkout, with -dirty if files differ; else the installed version."""
    tree = checkout()
    if tree is not None:
        try:
            said = subprocess.run(
                ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],  # noqa: S607
                capture_output=True, text=True, check=True, timeout=20,
            )  # fmt: skip
            return said.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return f"installed {version('bitactor')}"


def command() -> str:
    """The command line of this process, as one would type it."""
    name = Path(sys.argv[0]).name
    return " ".join(["python -m bitactor" if name == "__main__.py" else name, *sys.argv[1:]])
