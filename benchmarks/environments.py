"""Where each measuring process runs, all of it under build/bench/.

Python peers have environments of their own, C benchmarks a release build; peers in Rust and Java are built by cargo and
Maven from copies of their sources.
"""

import functools
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import ROOT

HOME = ROOT / "build" / "bench"
REQUIREMENTS = Path(__file__).parent / "requirements"
PEERS = Path(__file__).parent / "peers"

MAVEN = ("mvn", "-q", "-B", "compile", "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies")
# The heap is touched before the clock starts: else Java would pay for page faults in the timed passes. What is opened
# is what Agrona and Hazelcast ask for.
JAVA = (
    *("java", "-Xms3g", "-Xmx3g", "-XX:+AlwaysPreTouch", "--add-modules", "java.se"),
    *("--add-exports", "java.base/jdk.internal.ref=ALL-UNNAMED"),
    *("--add-opens", "java.base/jdk.internal.misc=ALL-UNNAMED", "--add-opens", "java.base/java.lang=ALL-UNNAMED"),
    *("--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED", "--add-opens", "java.management/sun.management=ALL-UNNAMED"),
    *("--add-opens", "jdk.management/com.sun.management.internal=ALL-UNNAMED"),
)


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
    home = HOME / "core"
    program = home / "core" / "tests" / name
    if not may_install:
        return program if program.exists() else f"{name} is not built; `make bench` builds it"
    meson = [sys.executable, "-m", "mesonbuild.mesonmain"]
    setup = [*meson, "setup", home, ROOT, "-Dpython=false", "-Dbuildtype=release", "-Db_ndebug=true"]
    build = [Path(sys.executable).parent / "ninja", "-C", home, program.relative_to(home)]
    for command in (build,) if (home / "build.ninja").exists() else (setup, build):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{name} does not build here: {error}"
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().split("\n")
            return f"{name} does not build here: {lines[-1]}"
    return program


@functools.cache
def _build(name: str, command: Sequence[str]) -> tuple[Path, str]:
    """Build a copy of peers/`name` there; where, and why it failed (empty: it did not)."""
    home = HOME / "peers" / name
    shutil.copytree(PEERS / name, home, dirs_exist_ok=True)
    print(f"bench: building {name} with {command[0]}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    except OSError as error:
        return home, f"{command[0]} is not installed: {error.strerror}"
    lines = (done.stdout + done.stderr).strip().split("\n")
    return home, f"{name} does not build here: {lines[-1]}" if done.returncode else ""


def cargo_program(name: str, *, may_install: bool) -> Path | str:
    """The Rust program of peers/`name`, built at need; or a line that says why there is none."""
    if not may_install:
        return f"{name} is not built; `make bench-peers` builds it"
    home, failure = _build(name, ("cargo", "build", "--release", "--quiet"))
    return failure or home / "target" / "release" / f"bitactor-peer-{name}"


def java_command(main_class: str, *, may_install: bool) -> list[str] | str:
    """The command that runs a class of peers/java, built at need; or a line that says why there is none."""
    if not may_install:
        return "the Java peers are not built; `make bench-peers` builds them"
    home, failure = _build("java", MAVEN)
    if failure:
        return failure
    return [*JAVA, "-cp", f"{home}/target/classes:{home}/target/dependency/*", f"bench.{main_class}"]
