"""What a step finds, and what of it is accepted with a reason.

A finding has a severity, whatever words its tool has for it. `accepted.toml` lists what is accepted, an entry for a
rule of a step in a file (or a glob of files) with the reason. What weighs more than LOW is accepted in a named file and
with an exact count only, so that one more of its kind is seen; an entry that accepts nothing is itself a finding.
"""

import fnmatch
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOW, MEDIUM, HIGH = SEVERITIES = ("LOW", "MEDIUM", "HIGH")


@dataclass(frozen=True)
class Finding:
    """One thing that a tool reports; `path` is relative to the root, `line` from 1, 0 where there is none."""

    rule: str
    severity: str
    path: str
    line: int
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.severity} {self.rule}: {self.message}"


@dataclass
class Result:
    """What a step gave: its tool's version, and findings; `missing` says what to do where the tool is not here."""

    version: str = ""
    looked_at: str = ""
    findings: list[Finding] = field(default_factory=list)
    missing: str = ""


class Missing(Exception):  # noqa: N818  (not an error: the step is not run)
    """The tool of a step is not here; the text says how to install it."""


@dataclass
class Accepted:
    """An entry of accepted.toml, and how many findings it has accepted so far."""

    step: str
    rule: str
    path: str
    why: str
    times: int | None = None
    used: int = 0

    def covers(self, step: str, finding: Finding) -> bool:
        """Whether the entry speaks of this finding; LOW ones may be named by a glob, others may not."""
        named = finding.path == self.path and self.times is not None
        globbed = finding.severity == LOW and fnmatch.fnmatch(finding.path, self.path)
        return step == self.step and finding.rule == self.rule and (named or globbed)


def accepted(file: Path) -> list[Accepted]:
    """The entries of the file. ValueError where one has no reason, or keys that mean nothing."""
    entries: list[dict[str, Any]] = tomllib.loads(file.read_text()).get("accepted", [])
    found = []
    for entry in entries:
        if not set(entry) <= {"step", "rule", "path", "paths", "why", "times"} or not str(entry.get("why", "")).strip():
            raise ValueError(f"{file.name}: an entry has step, rule, path or paths, why, and times: {entry}")
        paths = entry.get("paths", [entry["path"]] if "path" in entry else [])
        found += [Accepted(entry["step"], entry["rule"], path, entry["why"], entry.get("times")) for path in paths]
    return found


def open_findings(step: str, findings: list[Finding], entries: list[Accepted]) -> list[Finding]:
    """What no entry accepts, and a finding for each entry of the step that accepts nothing or another number."""
    left = []
    for finding in findings:
        entry = next((one for one in entries if one.covers(step, finding)), None)
        if entry is None:
            left.append(finding)
        else:
            entry.used += 1
    for entry in entries:
        as_said = entry.used > 0 if entry.times is None else entry.used == entry.times
        if entry.step != step or as_said:
            continue
        many = f"{entry.used} found, {entry.times} accepted" if entry.times is not None else "accepts nothing"
        severity = HIGH if entry.times is not None and entry.used > entry.times else LOW
        left.append(Finding(entry.rule, severity, entry.path, 0, f"accepted.toml: {many}"))
    return left
