"""Running what needs the source tree: meson's tests, tools, pytest. One thread, which waits for each command."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from bitactor.validation import machine
from bitactor.validation.campaign import CannotRun, DefectFoundError
from bitactor.validation.tether import run_tree

DEBUG: Final = ("-Dpython=false", "-Dbuildtype=debugoptimized", "-Db_ndebug=false")


def tree(*needed: str) -> Path:
    """The checkout around the working directory. CannotRun without one, or where it lacks these files."""
    found = machine.checkout()
    if found is None:
        raise CannotRun("needs the source tree: run it inside a checkout of BitActor")
    for name in needed:
        if not (found / name).exists():
            raise CannotRun(f"this checkout has no {name}")
    return found


def environment(**more: str) -> dict[str, str]:
    """Of commands: the tools beside this Python come first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, **more}


def call(root: Path, command: Sequence[str], timeout_s: float, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the tree; all that it started ends with it. CannotRun when it is not on this machine."""
    try:
        return run_tree(command, cwd=root, env=environment(**env), timeout_s=timeout_s)
    except FileNotFoundError as error:
        raise CannotRun(f"{error.filename} is missing: `make test` sets it up") from error
    except subprocess.TimeoutExpired as error:
        raise DefectFoundError(f"{' '.join(command)} did not end within {timeout_s:g} s") from error


def core_tests(root: Path, build: str, options: Sequence[str], *names: str, **env: str) -> dict[str, str]:
    """Build the core there with these options and run its tests (all but the slow suite, or those): name -> result."""
    made = call(root, ["tools/meson-build", build, *options], 1200)
    if made.returncode:
        raise CannotRun(f"the core does not build here: {(made.stderr or made.stdout)[-300:]}")
    scale = ["-t", "10"] if env else []
    log = root / build / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    command = ["meson", "test", "--no-rebuild", "--no-suite", "slow", "-C", build, *scale, *names]
    said = call(root, command, 2400, **env)
    if not log.exists():
        raise DefectFoundError(f"no test ran: {(said.stderr or said.stdout)[-300:]}")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return {row["name"].rpartition(" ")[2].rpartition(":")[2]: row["result"] for row in rows}


@dataclass(frozen=True, slots=True)
class Tests:
    """What a pytest run came to.

    bad: the names of those that failed, or broke before or after they ran; why: the first line that each said.
    """

    collected: int
    skipped: int
    bad: tuple[str, ...]
    why: tuple[str, ...]

    def note(self, what: str) -> str:
        """Of a report's row."""
        told = [f"{name} ({why})" for name, why in zip(self.bad, self.why, strict=True)]
        named = f": {', '.join(told[:10])}" if told else ""
        return f"{self.collected - self.skipped} {what} ran, {self.skipped} were skipped, {len(self.bad)} failed{named}"


def junit(path: Path) -> Tests:
    """What pytest wrote with --junitxml. A test that failed and then broke stands in it twice."""
    cases: dict[str, set[str]] = {}
    said: dict[str, str] = {}
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314  (our own pytest wrote it)
        name = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
        cases.setdefault(name, set()).update(result.tag for result in case)
        for result in case:
            if result.tag in ("failure", "error"):
                said.setdefault(name, (result.get("message") or "no message").splitlines()[0][:200])
    skipped = sum("skipped" in results for results in cases.values())
    return Tests(len(cases), skipped, tuple(said), tuple(said.values()))
