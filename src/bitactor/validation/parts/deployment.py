"""Deployment checks: what the chart renders, and, given a namespace of a cluster, what is installed there.

Rendered: the repository's tests of chart, rules and Terraform module, run by pytest in the checkout. Installed:
k8s/validate_deployment.sh, which needs kubectl and the right to make pods in the namespace.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from bitactor.validation import source
from bitactor.validation.campaign import CannotRun, DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold

COMMAND = "bitactor validate --only deployment"
SCRIPT = "k8s/validate_deployment.sh"


def run(run: Run) -> None:
    """Both, each where it can be run."""
    root = source.tree("tests/test_k8s_chart.py")
    _cluster(run, root)
    run.say("rendering")
    results = run.directory / "k8s.xml"
    files = sorted(str(path.relative_to(root)) for path in (root / "tests").glob("test_k8s_*.py"))
    command = ["python", "-m", "pytest", "-q", f"--junitxml={results}", "-p", "no:cacheprovider", *files]
    said = source.call(root, command, 1200)
    if not results.exists():
        raise DefectFoundError(f"pytest ended with {said.returncode}: {(said.stderr or said.stdout)[-300:]}")
    tests = source.junit(results)
    if tests.collected == tests.skipped:
        run.not_run("deployment.rendered", "no renderer here: helm, or helm-python-sdk of requirements/test.txt")
        return
    run.measure("deployment.rendered", len(tests.bad), tests.note("checks of rendered manifests"))


def _cluster(run: Run, root: Path) -> None:
    namespace = (run.target or {}).get("namespace")
    if namespace is None:
        run.not_run("deployment.installed", "no cluster was named: --kubernetes NAMESPACE, with KUBECONFIG set")
        return
    if shutil.which("kubectl") is None:
        raise CannotRun("kubectl is not on this machine")
    report = run.directory / "deployment.json"
    said = source.call(root, [SCRIPT, "-n", str(namespace), "-o", str(report)], 1200)
    if not report.exists():
        raise DefectFoundError(f"{SCRIPT} ended with {said.returncode}: {said.stderr[-300:]}")
    checks: Any = json.loads(report.read_text())
    rows = checks["checks"] if isinstance(checks, dict) else checks
    bad = [row for row in rows if str(row.get("result", row.get("verdict", ""))).lower().startswith("fail")]
    run.measure("deployment.installed", max(len(bad), int(said.returncode == 1)), f"{len(rows)} checks: {bad[:3]}")


PART = Part(
    "deployment",
    "Deployment",
    (
        Criterion("deployment.rendered", "Checks of rendered manifests that fail", Threshold("==", 0), "", COMMAND),
        Criterion(
            "deployment.installed", "Checks of what is installed that fail", Threshold("==", 0), "",
            "bitactor validate --only deployment --kubernetes NAMESPACE",
        ),
    ),
    run,
)  # fmt: skip
