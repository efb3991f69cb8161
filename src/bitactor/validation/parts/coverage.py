"""Coverage of Python and C together, by all tests; `coverage/index.html` shows the lines. Part of `full`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from bitactor.validation import source
from bitactor.validation.campaign import CannotRun, DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold

COMMAND = "bitactor validate --profile full --only coverage"
DECODER = ("core/src/frame.c",)
PYTHON_DECODER = "src/bitactor/protocol/frames.py"
RING = tuple(
    f"core/{name}"
    for name in (
        "src/ring.c", "src/spsc.c", "src/mpmc.c", "include/bitactor/ring.h", "include/bitactor/spsc.h",
        "include/bitactor/mpmc.h",
    )
)  # fmt: skip


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
    run.measure("coverage.python-tests", len(tests.bad), tests.note("tests"))
    lines = re.search(r"^lines: ([\d.]+)% \((\d+) out of (\d+)\)", said.stdout, re.MULTILINE)
    if lines is None:
        raise DefectFoundError(f"tools/coverage gave no figure (status {said.returncode}): {said.stderr[-300:]}")
    run.measure("coverage.lines", float(lines[1]), f"{lines[2]} of {lines[3]} lines; coverage/index.html")
    for name, (taken, branches, missed) in branches_in(root / "build" / "coverage").items():
        note = f"{taken} of {branches} branches" + (f"; not: {', '.join(missed[:5])}" if missed else "")
        run.measure(f"coverage.{name}-branches", 100 * taken / max(branches, 1), note)


def branches_in(build: Path) -> dict[str, tuple[int, int, list[str]]]:
    """(taken, all, places that were not) of the frame decoder, C and Python together, and of the ring.

    build: where tools/coverage has left c.json (gcovr's) and frames.json (coverage's, of the Python decoder).
    """
    c, missed = branches_of(build / "c.json", DECODER)
    python: Any = json.loads((build / "frames.json").read_text())
    told = [one for name, one in python["files"].items() if name.endswith("protocol/frames.py")]
    taken = sum(one["summary"]["covered_branches"] for one in told)
    branches = sum(one["summary"]["num_branches"] for one in told)
    missed += [f"{PYTHON_DECODER}:{begin}" for one in told for begin, _ in one["missing_branches"]]
    ring, missed_in_ring = branches_of(build / "c.json", RING)
    return {"decoder": (c[0] + taken, c[1] + branches, missed), "ring": (*ring, missed_in_ring)}


def branches_of(path: Path, files: tuple[str, ...]) -> tuple[tuple[int, int], list[str]]:
    """((taken, all), places that were not) of these files in gcovr's JSON; what gcovr leaves out is not counted."""
    data: Any = json.loads(path.read_text())
    taken = branches = 0
    missed: list[str] = []
    for file in data["files"]:
        if file["file"] not in files:
            continue
        for line in file["lines"]:
            if line.get("gcovr/excluded") or line.get("gcovr/noncode"):
                continue
            found = [branch["count"] for branch in line["branches"] if not branch.get("gcovr/excluded")]
            branches, taken = branches + len(found), taken + sum(count > 0 for count in found)
            missed += [f"{file['file']}:{line['line_number']}" for count in found if not count]
    return (taken, branches), missed


def main() -> int:
    """For tools/coverage: says the branches of the decoder and of the ring; status 1 unless all were taken."""
    good = True
    for name, (taken, branches, missed) in branches_in(Path(sys.argv[1])).items():
        print(f"branches of the {name}: {taken} of {branches}" + "".join(f"\n  not taken: {one}" for one in missed))  # noqa: T201
        good = good and 0 < taken == branches
    return 0 if good else 1


PART = Part(
    "coverage",
    "Coverage and all Python tests",
    (
        Criterion("coverage.python-tests", "Python tests that fail", Threshold("==", 0), "tests", COMMAND),
        Criterion("coverage.lines", "Lines of Python and C reached", Threshold(">=", 92), "%", COMMAND),
        Criterion("coverage.decoder-branches", "Branches of the frame decoder", Threshold(">=", 100), "%", COMMAND),
        Criterion("coverage.ring-branches", "Branches of the ring", Threshold(">=", 100), "%", COMMAND),
    ),
    run,
)

if __name__ == "__main__":
    sys.exit(main())
