"""The Terraform module: formatted; valid and tested with the pinned providers where Terraform finds them; no overlap.

Terraform looks for providers in its own plugin folders and its registry; where neither has them that test is skipped.
"""

import re
import shutil
import subprocess

import pytest

from tests.k8s_chart import ROOT, render, renderer

MODULE = ROOT / "k8s/terraform"
TERRAFORM = shutil.which("terraform")
needs_terraform = pytest.mark.skipif(TERRAFORM is None, reason="no terraform on the PATH")


def terraform(*arguments, cwd):
    return subprocess.run(
        [TERRAFORM, *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=None, timeout=240
    )


@pytest.fixture(scope="module")
def initialised(tmp_path_factory):
    """A copy of the module with its providers, or a skip."""
    folder = tmp_path_factory.mktemp("terraform")
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "tfplan")
    shutil.copytree(MODULE, folder / "terraform", ignore=ignored)
    (folder / "helm").symlink_to(ROOT / "k8s/helm")
    done = terraform("init", "-input=false", "-backend=false", cwd=folder / "terraform")
    if done.returncode:
        pytest.skip("terraform does not find hashicorp/helm and hashicorp/kubernetes in the pinned versions here")
    return folder / "terraform"


@needs_terraform
def test_the_module_is_formatted():
    done = terraform("fmt", "-check", "-recursive", "-diff", cwd=MODULE)
    assert done.returncode == 0, done.stdout


@needs_terraform
def test_the_module_is_valid(initialised):
    done = terraform("validate", cwd=initialised)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_terraform
def test_the_modules_own_tests_pass_and_a_planted_mistake_fails_them(initialised):
    done = terraform("test", "-no-color", cwd=initialised)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Success! (\d+) passed, 0 failed", done.stdout), done.stdout
    main = initialised / "main.tf"
    kept = main.read_text()
    main.write_text(kept.replace('"pod-security.kubernetes.io/enforce" = "restricted"', '"x" = "restricted"'))
    try:
        planted = terraform("test", "-filter=tests/module.tftest.hcl", cwd=initialised)
    finally:
        main.write_text(kept)
    assert planted.returncode != 0


def test_every_variable_and_output_has_a_description_and_variables_a_type():
    for file, kind in (("variables.tf", "variable"), ("outputs.tf", "output")):
        blocks = re.findall(rf'^{kind} "(\w+)" {{\n(.*?)^}}', (MODULE / file).read_text(), re.MULTILINE | re.DOTALL)
        assert len(blocks) > 5
        for name, body in blocks:
            assert re.search(r'^  description += ".+\."$', body, re.MULTILINE), name
            assert kind == "output" or re.search(r"^  type +=", body, re.MULTILINE), name


def test_providers_are_pinned_exactly():
    versions = re.findall(r'^ +version = "([^"]+)"', (MODULE / "versions.tf").read_text(), re.MULTILINE)
    assert len(versions) == 2
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", one) for one in versions)


@pytest.mark.skipif(renderer() is None, reason="neither helm nor helm-python-sdk is here")
def test_the_module_makes_nothing_that_the_chart_makes():
    made = set(re.findall(r'^resource "(\w+)"', (MODULE / "main.tf").read_text(), re.MULTILINE))
    assert made == {
        "kubernetes_namespace_v1",
        "kubernetes_secret_v1",
        "kubernetes_network_policy_v1",
        "helm_release",
    }
    names = set(re.findall(r'name += "\$\{var.release\}-([\w-]+)"', (MODULE / "main.tf").read_text()))
    assert names == {"nats-credentials", "nats-ca"}
    given = {"mode": "standalone"}
    charts = {doc["metadata"]["name"].removeprefix("bitactor-") for doc in render(given)}
    assert not names & charts
    assert "nats" not in charts


def test_no_secret_is_an_output_and_secret_variables_are_sensitive():
    text = (MODULE / "outputs.tf").read_text()
    assert "kubernetes_secret" not in text
    assert "var.nats_credentials" not in text
    variables = (MODULE / "variables.tf").read_text()
    (body,) = re.findall(r'^variable "nats_credentials" {\n(.*?)^}', variables, re.MULTILINE | re.DOTALL)
    assert "sensitive   = true" in body
