"""The tree that is audited: its files, the programs that read it, and how they are run."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from audit.findings import Missing

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".venv" / "audit" / "bin"
BUILD = ROOT / "build" / "audit"
OURS = Path(__file__).resolve().parent
INSTALL = "PYTHONPATH=tools .venv/bin/python -m audit --install"
JOBS = len(os.sched_getaffinity(0))
# Code that is there to be found by semgrep's rules.
PLANTED = "tools/audit/semgrep/"


def run(*command: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in the root and wait for it; whatever its status, its output is kept."""
    environment = {**os.environ, "SEMGREP_SEND_METRICS": "off", "SEMGREP_ENABLE_VERSION_CHECK": "0", "NO_COLOR": "1"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        check=False,
    )


def tool(name: str, how: str = INSTALL) -> Path:
    """Where a program is: pinned, beside our Python, or on the PATH, in this order. Missing says how to install it."""
    for folder in (TOOLS, ROOT / ".venv" / "bin"):
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed; {how}")
    return Path(found)


def version(program: Path, *options: str) -> str:
    """The first number with dots in what the program says about itself."""
    said = run(program, *(options or ("--version",)))
    found = re.search(r"\d+(?:\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else "?"


def files(*patterns: str) -> list[str]:
    """Files that git knows or would know, by git's patterns, without what is planted for the rules' own tests."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns).stdout.splitlines()
    return sorted({path for path in listed if (ROOT / path).is_file() and not path.startswith(PLANTED)})


def shell_scripts() -> list[str]:
    """Every file whose first line names sh or bash."""
    return [
        path for path in files() if re.match(rb"#!.*\b(?:ba)?sh\b", (ROOT / path).read_bytes()[:80].split(b"\n")[0])
    ]


def failed(what: str, done: subprocess.CompletedProcess[str]) -> RuntimeError:
    """The error of a program that neither passed nor reported."""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return RuntimeError(f"{what} ended with status {done.returncode}: {' | '.join(lines[-5:])}")
