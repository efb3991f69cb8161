"""Copy reports of campaigns into docs/validation: publish_reports.py [FILE.json...]; without names, what `make` wrote.

make validate, chaos, soak and adversarial leave their reports under build/. A report is published as it is, never
edited, and only if it passed, names a commit that is in this branch's history, was run without changed files, and has
no path of a machine or of temporary files in it. Status 1 says which was not published, and why.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "validation"
# Where a report comes from, and the name that it is published under.
REPORTS = {
    "build/validation/validation_report.json": "reports/full.json",
    "build/chaos/chaos_report.json": "reports/chaos.json",
    "build/chaos-kubernetes/chaos_report.json": "reports/chaos-kubernetes.json",
    "build/soak/soak_report.json": "reports/soak.json",
    "build/quick/validation_report.json": "reports/quick.json",
    "build/adversarial_retest_report.json": "adversarial_retest_report.json",
}
PATHS = re.compile(r"/(?:home|root|Users|work|tmp|var/tmp)/[\w.-]+")


def wrong_with(report: dict[str, object], text: str) -> str:
    """Why it is not to be published; empty if it is."""
    commit = str(report.get("commit") or "")
    summary = report.get("summary")
    if isinstance(summary, dict):
        good = not summary["failed"] and summary["variants_caught"] == summary["variants"]
    else:
        good = bool(report.get("good"))
    if not good:
        return "it did not pass"
    if commit.endswith("-dirty") or not re.fullmatch(r"[0-9a-f]{7,40}", commit):
        return f"it was not run at a commit: {commit!r}"
    ask = ["git", "-C", str(ROOT), "merge-base", "--is-ancestor", commit, "HEAD"]
    known = subprocess.run(ask, capture_output=True, check=False)
    if known.returncode:
        return f"its commit {commit} is not in this branch's history"
    found = PATHS.search(text)
    return f"it has a path of a machine in it: {found[0]}" if found else ""


def publish(source: Path, target: Path) -> str:
    """Copy a report and what stands beside it; what is wrong, or nothing."""
    text = source.read_text(encoding="utf-8")
    report = json.loads(text)
    reason = wrong_with(report, text)
    for suffix in (".json", ".md", ".html"):
        if not reason and source.with_suffix(suffix).exists():
            shutil.copyfile(source.with_suffix(suffix), target.with_suffix(suffix))
            if report.get("variants"):  # a report of variants alone is in this one
                target.with_name("adversarial_variants_report").with_suffix(suffix).unlink(missing_ok=True)
    return reason


def main() -> int:
    """Publish those that are there."""
    given = [Path(name).resolve() for name in sys.argv[1:]] or [ROOT / name for name in REPORTS]
    targets = {ROOT / name: DOCS / target for name, target in REPORTS.items()}
    status = 0
    for source in given:
        if source not in targets:
            sys.stderr.write(f"{source}: not one of {', '.join(REPORTS)}\n")
            status = 1
        elif source.exists():
            reason = publish(source, targets[source])
            sys.stdout.write(f"{source.relative_to(ROOT)}: {reason or f'is {targets[source].relative_to(ROOT)}'}\n")
            status = 1 if reason else status
    return status


if __name__ == "__main__":
    sys.exit(main())
