"""Where each measuring process runs: peers in environments of their own, C benchmarks in a release build."""

import subprocess
import sys
from pathlib import Path

from benchmarks.machine import ROOT

HOME = ROOT / "build" / "bench"
REQUIREMENTS = Path(__file__).parent / "requirements"


def python(name: str, *, may_install: bool) -> Path | str:
    """The interpreter of environment `name`, made at need; or a line that says why there is none.

    The empty name is this process's own environment, where bitactor is installed.
    """
    if not name:
        return Path(sys.executable)
    home, wanted = HOME / name, REQUIREMENTS / f"{name}.txt"
    interpreter, stamp = home / "bin" / "python", home / "installed"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return interpreter
    if not may_install:
        return f"its environment is not installed; `make bench` makes it from {wanted.relative_to(ROOT)}"
    print(f"bench: installing {name}", file=sys.stderr, flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", home],
        [interpreter, "-m", "pip", "install", "-q", "-r", wanted],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().split("\n")
            return f"{name} does not install here: {lines[-1]}"
    stamp.write_text(wanted.read_text())
    return interpreter


def core_program(name: str, *, may_install: bool) -> Path | str:
    """The C benchmark of that name, built at need in release mode; or a line that says why there is none."""
    found = sorted((HOME / "core").rglob(name)) if (HOME / "core").exists() else []
    programs = [path for path in found if path.is_file()]
    if not may_install:
        return programs[0] if programs else f"{name} is not built; `make bench` builds it"
    meson = [sys.executable, "-m", "mesonbuild.mesonmain"]
    setup = [*meson, "setup", HOME / "core", ROOT, "-Dpython=false", "-Dbuildtype=release", "-Db_ndebug=true"]
    bin_path = Path(sys.executable).parent
    ninja = bin_path / "ninja"
    for command in (
        setup if not (HOME / "core" / "build.ninja").exists() else [ninja, "--version"],
        [ninja, "-C", HOME / "core", name],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{name} does not build here: {error}"
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().split("\n")
            return f"{name} does not build here: {lines[-1]}"
    programs = [path for path in sorted((HOME / "core").rglob(name)) if path.is_file()]
    return programs[0] if programs else f"{name} was built to no known place"
