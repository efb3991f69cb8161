"""checkov on the rendered chart, the Dockerfile and the Terraform module: nothing fails, and what is planted does.

Runs where tools/checkov is installed (`make k8s-check` does it); each check that is left out has its reason here.
"""

import json
import subprocess

import pytest
import yaml

from tests import k8s_chart
from tests.k8s_chart import ROOT, Case, render_all

CHECKOV = ROOT / "tools/checkov"
pytestmark = [
    pytest.mark.skipif(
        not (ROOT / ".venv/checkov/installed").exists() or k8s_chart.renderer() is None,
        reason="checkov is not here: tools/checkov --install",
    ),
    pytest.mark.timeout(600),
]
LEFT_OUT = {
    "CKV_K8S_43": "by digest: image.digest is the installer's to give; the chart's default is a tag",
    "CKV_K8S_15": "imagePullPolicy Always: a tag of a release does not change, and nodes go on without the registry",
    "CKV_K8S_21": "default namespace: the release's, which the manifests name",
    "CKV2_K8S_6": "a NetworkPolicy for each pod: that of the helm test is the namespace's, and it lives seconds",
    "CKV_K8S_40": "a user above 10000: it is 10001",
}
# Of one resource: its name ends so.
LEFT_OUT_OF = {
    ("CKV_K8S_8", "-test"): "the pod of helm test runs to its end: there is nothing to probe",
    ("CKV_K8S_9", "-test"): "the same",
}


def checked(framework, path):
    """(failed ids with what they say, number passed)."""
    command = [CHECKOV, "--framework", framework, "--output", "json", "--quiet", "--compact"]
    done = subprocess.run(
        [*command, "--skip-check", ",".join(LEFT_OUT), *path], capture_output=True, text=True, check=False
    )
    said = json.loads(done.stdout)
    reports = said if isinstance(said, list) else [said]
    failed = [
        f"{one['check_id']} {one['check_name']}: {one['resource']}"
        for report in reports
        for one in report.get("results", {}).get("failed_checks", [])
        if not any(one["check_id"] == check and one["resource"].endswith(end) for check, end in LEFT_OUT_OF)
    ]
    summaries = [report.get("summary", report) for report in reports]
    return failed, sum(one["passed"] for one in summaries)


def write(tmp_path, name, found):
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(found))


def test_checkov_finds_nothing_in_the_manifests(tmp_path):
    cases = [case for case in k8s_chart.cases(full=True) if case.version == k8s_chart.NEWEST]
    for case, found in zip(cases, render_all(cases), strict=True):
        write(tmp_path, case.name, found)
    failed, passed = checked("kubernetes", ["--directory", str(tmp_path)])
    assert failed == []
    assert passed > 500


def test_checkov_finds_what_is_planted(tmp_path):
    (found,) = render_all([Case("", {"mode": "standalone"})])
    main = k8s_chart.pod_template(found)["spec"]["containers"][0]
    main["securityContext"].update(privileged=True, readOnlyRootFilesystem=False)
    main["image"] = "bitactor:latest"
    del main["resources"]["limits"]
    write(tmp_path, "planted", found)
    failed, _ = checked("kubernetes", ["--directory", str(tmp_path)])
    ids = {text.split()[0] for text in failed}
    assert {"CKV_K8S_16", "CKV_K8S_22", "CKV_K8S_14", "CKV_K8S_11", "CKV_K8S_13"} <= ids


def test_checkov_finds_nothing_in_the_dockerfile(tmp_path):
    failed, passed = checked("dockerfile", ["--file", str(ROOT / "k8s/Dockerfile")])
    assert failed == []
    assert passed > 10
    planted = tmp_path / "Dockerfile"
    planted.write_text('FROM debian:latest\nADD x /x\nCMD ["/x"]\n')
    failed, _ = checked("dockerfile", ["--file", str(planted)])
    assert {text.split()[0] for text in failed} >= {"CKV_DOCKER_3", "CKV_DOCKER_7"}


def test_checkov_finds_nothing_in_the_terraform_module_and_what_is_planted_there(tmp_path):
    failed, _ = checked("terraform", ["--directory", str(ROOT / "k8s/terraform")])
    assert failed == []
    (tmp_path / "main.tf").write_text(
        'resource "kubernetes_pod_v1" "x" {\n  metadata {\n    name = "x"\n  }\n  spec {\n    container {\n'
        '      name  = "x"\n      image = "x:latest"\n      security_context {\n        privileged = true\n'
        "      }\n    }\n  }\n}\n"
    )
    failed, _ = checked("terraform", ["--directory", str(tmp_path)])
    assert any(text.startswith("CKV_K8S_16 ") for text in failed), failed
