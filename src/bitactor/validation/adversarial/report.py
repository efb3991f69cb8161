"""The report of a run, as a JSON document and as a page for people. Everything in it is counted or measured.

Its counts must agree: cases = passed + failed + not run, over all and for each category; `write` refuses otherwise.
"""

import json
import os
import platform
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bitactor.validation.adversarial import cvss
from bitactor.validation.adversarial.campaign import Outcome, Trial

FORMAT: Final = 1
_PACKAGES: Final = ("bitactor", "uvloop", "uvicorn", "h11", "starlette", "cryptography", "apsw", "duckdb", "numpy")


def document(
    outcomes: Sequence[Outcome], trials: Sequence[Trial], *, seed: int, target: str, form: str, began: float
) -> dict[str, Any]:
    """The report. target: what was attacked; form: which cases were chosen; began: Unix time."""
    return {
        "format": FORMAT,
        "report": "adversarial_retest_report",
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "seed": seed,
        "target": target,
        "form": form,
        "commit": _commit(),
        "machine": _machine(),
        "versions": _versions(),
        "summary": _summary(outcomes, trials),
        "categories": {name: _counts(some) for name, some in _by_category(outcomes).items()},
        "cases": [_case(one) for one in outcomes],
        "variants": [_trial(one) for one in trials],
    }


def good(report: dict[str, Any]) -> bool:
    """Whether nothing is other than expected: no case failed, no defect was missed."""
    summary = report["summary"]
    return not summary["failed"] and summary["variants_caught"] == summary["variants"]


def write(report: dict[str, Any], file: Path) -> None:
    """Write the JSON, and the page beside it with the suffix .md. ValueError: its counts do not agree."""
    summary = report["summary"]
    parts = [summary, *report["categories"].values()]
    if any(one["cases"] != one["passed"] + one["failed"] + one["not_run"] for one in parts) or any(
        summary[what] != sum(one[what] for one in report["categories"].values())
        for what in ("cases", "passed", "failed", "not_run")
    ):
        raise ValueError(f"the report's counts do not agree: {summary}, {report['categories']}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    file.with_suffix(".md").write_text(page(report))


def page(report: dict[str, Any]) -> str:
    """The report for people, in Markdown."""
    summary, machine = report["summary"], report["machine"]
    counts = f"{summary['passed']} as expected, {summary['failed']} not, {summary['not_run']} not run"
    caught = f"{summary['variants_caught']} of {summary['variants']} caught"
    lines = [
        "# Adversarial report",
        "",
        f"{report['began']}, {report['seconds']:g} s, seed {report['seed']}.",
        f"{report['form'].capitalize()}, against {report['target']}.",
        f"Commit {report['commit']}. {machine['processor']}, {machine['cores']} cores, {machine['system']},",
        f"Python {machine['python']}, {machine['openssl']}; load of the machine before: {machine['load_before']}.",
        "",
        f"{summary['cases']} cases: {counts}. Weakened variants: {caught}.",
        "",
        "| category | cases | as expected | not | not run |",
        "|---|---|---|---|---|",
    ]
    for name, one in report["categories"].items():
        lines.append(f"| {name} | {one['cases']} | {one['passed']} | {one['failed']} | {one['not_run']} |")
    for title, state in (("Not as expected", "failed"), ("Not run", "not run")):
        some = [one for one in report["cases"] if one["state"] == state]
        if some:
            lines += ["", f"## {title}", ""]
            lines += [
                f"- `{one['id']}` (CWE-{one['cwe']}, {one['severity']['score']} {one['severity']['rating']}): "
                f"{_cell(one['observed'])}"
                for one in some
            ]
    if report["variants"]:
        lines += ["", "## Weakened variants", "", "| defect | caught | by |", "|---|---|---|"]
        for one in report["variants"]:
            by = ", ".join(f"`{id_}`" for id_ in one["by"])
            lines.append(f"| {_cell(one['defect'])} | {'yes' if one['caught'] else 'no'} | {by} |")
    lines += ["", "## Cases", "", "CVSS is what it would be if the attack worked.", ""]
    lines += ["| case | CWE | CVSS 3.1 | attack | expected | observed |", "|---|---|---|---|---|---|"]
    for one in report["cases"]:
        severity = one["severity"]
        told = f"{severity['score']} `{severity['vector']}`"
        row = (f"`{one['id']}`", one["cwe"], told, one["title"], one["expected"], f"{one['state']}: {one['observed']}")
        lines.append("| " + " | ".join(_cell(str(cell)) for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= 240 else f"{text[:237]}…"


def _by_category(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for one in outcomes:
        found.setdefault(one.case.category, []).append(one)
    return found


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    states = Counter(one.state for one in outcomes)
    return {
        "cases": len(outcomes),
        "passed": states["passed"],
        "failed": states["failed"],
        "not_run": states["not run"],
    }


def _summary(outcomes: Sequence[Outcome], trials: Sequence[Trial]) -> dict[str, Any]:
    worst = max((cvss.score(one.case.vector) for one in outcomes if one.state == "failed"), default=0.0)
    return _counts(outcomes) | {
        "worst_score": worst,
        "variants": len(trials),
        "variants_caught": sum(one.caught for one in trials),
    }


def _case(one: Outcome) -> dict[str, Any]:
    case, points = one.case, cvss.score(one.case.vector)
    return {
        "id": case.id,
        "title": case.title,
        "surface": case.surface,
        "cwe": case.cwe,
        "severity": {"vector": f"CVSS:3.1/{case.vector}", "score": points, "rating": cvss.rating(points)},
        "precondition": case.precondition,
        "steps": case.steps,
        "expected": case.expected,
        "observed": one.observed,
        "state": one.state,
        "pass": one.state == "passed",
        "seconds": round(one.seconds, 3),
    }


def _trial(one: Trial) -> dict[str, Any]:
    ran = {outcome.case.id: f"{outcome.state}: {outcome.observed}" for outcome in one.outcomes}
    return {"variant": one.name, "defect": one.what, "caught": one.caught, "by": one.by, "cases": ran}


def _commit() -> str | None:
    """The commit of the checkout that this package lies in, or is started in; None: neither."""
    for folder in (Path(__file__).parent, Path.cwd()):
        try:
            git = ["git", "-C", str(folder)]
            head = subprocess.run(
                [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
            ).stdout.strip()
            dirty = subprocess.run(
                [*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        return head + ("-dirty" if dirty else "")
    return None


def _machine() -> dict[str, Any]:
    processor = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "load_before": round(os.getloadavg()[2], 2),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
