"""Coverage of Python and C together, by all tests; `coverage/index.html` shows the lines. Part of `full`."""

import json
import re
from pathlib import Path
from typing import Any

from bitactor.validation import source
from bitactor.validation.campaign import CannotRun, DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold

COMMAND = "bitactor validate --profile full --only coverage"
DECODER = ("core/src/frame.c",)
RING = ("core/src/ring.c", "core/src/spsc.c", "core/src/mpmc.c")


def run(run: Run) -> None:
    """tools/coverage, which runs meson's tests and pytest on a build that counts; then its files."""
    if not run.size("source_tests"):
        raise CannotRun("the quick profile leaves it out: --profile full")
    root = source.tree("tools/coverage")
    run.say("all tests on a build that counts (minutes)")
    results = run.directory / "tests.xml"
    said = source.call(root, ["tools/coverage", "1"], 2400, PYTEST_ADDOPTS=f"--junitxml={results} -p no:cacheprovider")
    if not results.exists():
        raise DefectFoundError(f"tools/coverage ended with {said.returncode} before pytest did: {said.stderr[-300:]}")
    tests = source.junit(results)
    bad = tests["failures"] + tests["errors"]
    run.measure("coverage.python-tests", bad, f"{tests['tests']} tests, {tests['skipped']} of them skipped")
    run.count("coverage.tests", {"collected": tests["tests"]},
              {"good": tests["tests"] - bad - tests["skipped"], "bad": bad, "skipped": tests["skipped"]})  # fmt: skip
    lines = re.search(r"^lines: ([\d.]+)% \((\d+) out of (\d+)\)", said.stdout, re.MULTILINE)
    if lines is None:
        raise DefectFoundError(f"tools/coverage gave no figure (status {said.returncode}): {said.stderr[-300:]}")
    run.measure("coverage.lines", float(lines[1]), f"{lines[2]} of {lines[3]} lines; coverage/index.html")
    counts = root / "build" / "coverage" / "c.json"
    for name, files in (("decoder", DECODER), ("ring", RING)):
        taken, branches = branches_of(counts, files)
        run.measure(f"coverage.{name}-branches", 100 * taken / max(branches, 1), f"{taken} of {branches} branches")


def branches_of(path: Path, files: tuple[str, ...]) -> tuple[int, int]:
    """(taken, all) branches of these files in gcovr's JSON; those that gcovr leaves out are not counted."""
    data: Any = json.loads(path.read_text())
    taken = branches = 0
    for file in data["files"]:
        if file["file"] not in files:
            continue
        for line in file["lines"]:
            if line.get("gcovr/excluded") or line.get("gcovr/noncode"):
                continue
            found = [branch["count"] for branch in line["branches"] if not branch.get("gcovr/excluded")]
            branches, taken = branches + len(found), taken + sum(count > 0 for count in found)
    return taken, branches


PART = Part(
    "coverage",
    "Coverage and all Python tests",
    (
        Criterion("coverage.python-tests", "Python tests that fail", Threshold("==", 0), "tests", COMMAND),
        Criterion("coverage.lines", "Lines of Python and C reached", Threshold(">=", 90, warn=92), "%", COMMAND),
        Criterion("coverage.decoder-branches", "Branches of the frame decoder", Threshold(">=", 100), "%", COMMAND),
        Criterion("coverage.ring-branches", "Branches of the ring", Threshold(">=", 100), "%", COMMAND),
    ),
    run,
)
