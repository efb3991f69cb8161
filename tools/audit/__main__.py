"""`make audit`: runs every step, prints what is open and a table, writes build/audit/audit_report.json.

    PYTHONPATH=tools .venv/bin/python -m audit [--install] [--strict] [--only STEP,...]

--install makes .venv/audit with the tools of requirements/audit.txt. A step is `passed`, has open `findings`, `failed`
(its tool ended badly), or is `not run` because its tool is not here. Ends with 1 for findings and failed steps, with
--strict (as CI does) also for steps that were not run; a step that was not run never counts as passed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

from audit import code, core, packages
from audit.findings import SEVERITIES, Accepted, Missing, Result, accepted, open_findings
from audit.tree import BUILD, OURS, ROOT, TOOLS, run

STEPS: dict[str, Callable[[], Result]] = {
    "bandit": code.bandit,
    "semgrep-rules": code.semgrep_rules,
    "semgrep": code.semgrep,
    "gcc-analyzer": core.gcc_analyzer,
    "clang-tidy": core.clang_tidy,
    "cppcheck": core.cppcheck,
    "shellcheck": code.shellcheck,
    "hadolint": code.hadolint,
    "secrets": code.secrets,
    "licences": packages.licences,
    "sbom": packages.sbom,
    "hardening": core.hardening,
}
SHOWN_MAX = 40  # open findings printed for a step; the report has all


def install() -> int:
    """Make .venv/audit, unless it is as requirements/audit.txt says; 0 also where that cannot be: steps tell."""
    requirements = ROOT / "requirements" / "audit.txt"
    stamp, key = TOOLS.parent / "installed", str(crc32(requirements.read_bytes()))
    if stamp.exists() and stamp.read_text() == key:
        return 0
    shutil.rmtree(TOOLS.parent, ignore_errors=True)
    commands = (
        (sys.executable, "-m", "venv", TOOLS.parent),
        (TOOLS / "pip", "install", "-q", "--disable-pip-version-check", "--prefer-binary", "-r", requirements),
    )
    for command in commands:
        if run(*command).returncode:
            print("audit: the tools of requirements/audit.txt could not be installed; their steps will not be run")
            return 0
    stamp.write_text(key)
    return 0


def step(name: str, entries: list[Accepted]) -> dict[str, Any]:
    """Run a step: what the report says of it."""
    started = time.monotonic()
    told: dict[str, Any] = {"step": name, "status": "passed", "version": "", "looked_at": "", "accepted": 0, "open": []}
    try:
        result = STEPS[name]()
    except Missing as missing:
        return {**told, "status": "not run", "why": str(missing)}
    except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return {**told, "status": "failed", "why": f"{type(error).__name__}: {error}"}
    left = open_findings(name, result.findings, entries)
    told |= {"version": result.version, "looked_at": result.looked_at, "seconds": round(time.monotonic() - started, 1)}
    told["accepted"] = sum(one.used for one in entries if one.step == name)
    told["open"] = [vars(one) for one in left]
    for one in left[:SHOWN_MAX]:
        print(f"audit: {name}: {one}")
    if len(left) > SHOWN_MAX:
        print(f"audit: {name}: and {len(left) - SHOWN_MAX} more")
    return {**told, "status": "findings" if left else "passed"}


def table(told: list[dict[str, Any]]) -> str:
    """A line for each step."""
    lines = [f"{'step':14} {'tool':10} {'result':22} looked at"]
    for one in told:
        by = {severity: sum(each["severity"] == severity for each in one["open"]) for severity in SEVERITIES}
        result = one["status"]
        if one["status"] == "findings":
            result = ", ".join(f"{many} {severity}" for severity, many in reversed(by.items()) if many)
        also = f", {one['accepted']} accepted" if one["accepted"] else ""
        lines.append(f"{one['step']:14} {one['version']:10} {result:22} {one.get('why') or one['looked_at'] + also}")
    return "\n".join(lines)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__.partition("\n")[0])
    parser.add_argument("--install", action="store_true", help="install the tools, and do nothing else")
    parser.add_argument("--strict", action="store_true", help="a step that is not run is an error too")
    parser.add_argument("--only", default=",".join(STEPS), help="steps by name, with commas between")
    options = parser.parse_args()
    if options.install:
        return install()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in STEPS]:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    entries = accepted(OURS / "accepted.toml")
    if strangers := sorted({one.step for one in entries} - set(STEPS)):
        parser.error(f"accepted.toml names no step by {', '.join(strangers)}")
    BUILD.mkdir(parents=True, exist_ok=True)
    told = [step(name, entries) for name in names]
    counts = {
        status: sum(one["status"] == status for one in told) for status in ("passed", "findings", "failed", "not run")
    }
    bad = counts["findings"] + counts["failed"] + (counts["not run"] if options.strict else 0)
    report = {"revision": revision(), "strict": options.strict, "counts": counts, "ok": not bad, "steps": told}
    Path(BUILD / "audit_report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(table(told))
    print(
        "audit: " + ", ".join(f"{many} {status}" for status, many in counts.items()) + "; build/audit/audit_report.json"
    )
    if counts["not run"] and not options.strict:
        print("audit: what was not run is not passed; --strict makes it an error")
    return 1 if bad else 0


def revision() -> str:
    """The commit that was audited, with -dirty where the tree differs from it."""
    return run("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
