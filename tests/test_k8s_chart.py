"""The chart over a matrix of values and versions of Kubernetes: schemas, our own rules, golden manifests, refusals.

K8S_MATRIX=full (`make k8s-check`) takes every version from 1.28 to 1.37 and every switch; without it a part of them.
"""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import chart_page
import pytest
import yaml

from bitactor.config.load import load
from tests import k8s_chart, k8s_rules
from tests.k8s_chart import CHART, GOLDEN, NEWEST, ROOT, Case, Refused, one, pod_template, render

pytestmark = [
    pytest.mark.skipif(k8s_chart.renderer() is None, reason="neither helm nor helm-python-sdk is here"),
    pytest.mark.timeout(300),
]
CASES = k8s_chart.cases(full=os.environ.get("K8S_MATRIX") == "full")
CLUSTER = {"nats": {"url": "tls://nats.nats.svc:4222"}}
STANDALONE = {"mode": "standalone"}
CRDS = {"monitoring.coreos.com/v1", "cert-manager.io/v1"}  # `make k8s-e2e` lets the real ones judge


@pytest.fixture(scope="module")
def rendered():
    got = {}
    for case, found in zip(CASES, k8s_chart.render_all(CASES), strict=True):
        assert not isinstance(found, Refused), f"{case.name} {case.version}: {found}"
        got[case.name, case.version] = found
    return got


# --- every manifest of the matrix ---


def test_every_manifest_is_valid_for_its_version_of_kubernetes(rendered):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not here")
    seen = set()
    for (name, version), found in rendered.items():
        for doc in found:
            key = version, k8s_chart.digest(json.dumps(doc, sort_keys=True))
            if doc["apiVersion"] in CRDS or doc["kind"] == "Secret" or key in seen:
                continue
            seen.add(key)
            try:
                kubernetes_validate.validate(doc, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                pytest.fail(f"{name} on {version}: {doc['kind']}/{doc['metadata']['name']}: {error}")


def test_a_misspelt_field_is_not_valid():
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not here")
    doc = one(render(STANDALONE), "StatefulSet")
    doc["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(doc, NEWEST, strict=True)


def test_no_rule_is_broken(rendered):
    broken = {
        f"{name} on {version}: {text}"
        for (name, version), found in rendered.items()
        for text in k8s_rules.problems(found)
    }
    assert not broken, "\n".join(sorted(broken))


def test_manifests_are_those_that_were_kept():
    """After a wanted change: python -m tests.k8s_chart."""
    for case, found in zip(k8s_chart.golden_cases(), k8s_chart.render_all(k8s_chart.golden_cases()), strict=True):
        kept = GOLDEN / f"chart-{case.name}.yaml"
        assert k8s_chart.settled(found) == kept.read_text(), f"{kept.name}: python -m tests.k8s_chart rewrites it"


def test_every_resource_takes_labels_and_annotations():
    keys = json.loads((CHART / "values.schema.json").read_text())["properties"]["metadata"]["properties"]
    given = {key: {"labels": {"x/own": key}, "annotations": {"x/note": key}} for key in keys}
    common = {"commonLabels": {"x/all": "1"}, "commonAnnotations": {"x/all": "2"}, "metadata": given}
    monitoring = {"monitoring": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}}
    issuer = {"tls": {"source": "certManager", "certManager": {"issuerRef": {"name": "ca"}}}}
    seen = set()
    for values in ({**CLUSTER, **monitoring}, {**STANDALONE, **issuer}):
        found = render({**values, **common})
        for doc in [*found, pod_template(found)]:
            meta = doc["metadata"]
            assert meta["labels"]["x/all"] == "1", doc
            assert meta["annotations"]["x/all"] == "2", doc
            assert meta["labels"]["x/own"] == meta["annotations"]["x/note"]
            seen.add(meta["labels"]["x/own"])
    assert seen == set(keys)


# --- what is planted is found ---


def _pod(found):
    return pod_template(found)["spec"]


def _main(found):
    return _pod(found)["containers"][0]


def _edit(kind, path, value):
    def change(found):
        at = one(found, kind)
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


def _add(doc):
    return lambda found: found.append(doc)


META = {
    "name": "x",
    "namespace": "bitactor",
    "labels": {"app.kubernetes.io/instance": "bitactor", "app.kubernetes.io/name": "x"},
}
ROLE = {"kind": "Role", "metadata": META, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
PLANTED = {
    "privileged": (lambda f: _main(f)["securityContext"].update(privileged=True), "privileged"),
    "root": (lambda f: _pod(f)["securityContext"].update(runAsUser=0), "runs as root"),
    "host network": (lambda f: _pod(f).update(hostNetwork=True), "hostNetwork"),
    "host path": (lambda f: _pod(f)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "not allowed"),
    "escalation": (lambda f: _main(f)["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    "capabilities": (lambda f: _main(f)["securityContext"]["capabilities"].update(drop=[]), "drop all"),
    "added capability": (lambda f: _main(f)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]), "adds"),
    "no seccomp": (lambda f: _pod(f)["securityContext"].pop("seccompProfile"), "seccomp"),
    "host port": (lambda f: _main(f)["ports"][0].update(hostPort=9090), "hostPort"),
    "writable root": (lambda f: _main(f)["securityContext"].update(readOnlyRootFilesystem=False), "can be written"),
    "token": (lambda f: _pod(f).update(automountServiceAccountToken=True), "token is mounted"),
    "latest": (lambda f: _main(f).update(image="ghcr.io/bitactor/bitactor:latest"), "not fixed"),
    "no tag": (lambda f: _main(f).update(image="localhost:5000/bitactor"), "not fixed"),
    "no limits": (lambda f: _main(f)["resources"].pop("limits"), "no limits"),
    "unlimited emptyDir": (lambda f: _pod(f)["volumes"].append({"name": "e", "emptyDir": {}}), "without a limit"),
    "readable secret": (
        lambda f: _pod(f)["volumes"].append({"name": "s", "secret": {"secretName": "a"}}),
        "read by all",
    ),
    "wildcard role": (_add(ROLE), "no rights are needed"),
    "account with token": (_edit("ServiceAccount", ["automountServiceAccountToken"], True), "its token is mounted"),
    "one probe for two": (lambda f: _main(f)["livenessProbe"]["httpGet"].update(path="/readyz"), "probes ask"),
    "no preStop": (lambda f: _main(f).pop("lifecycle"), "no preStop"),
    "short grace": (lambda f: _pod(f).update(terminationGracePeriodSeconds=30), "grace is not longer"),
    "no checksum": (lambda f: pod_template(f)["metadata"]["annotations"].pop("checksum/config"), "does not restart"),
    "budget of zero": (_edit("PodDisruptionBudget", ["spec", "minAvailable"], 0), "protects nothing"),
    "budget of all": (_edit("PodDisruptionBudget", ["spec", "minAvailable"], "100%"), "no node be drained"),
    "autoscaler of nothing": (
        _edit("HorizontalPodAutoscaler", ["spec", "scaleTargetRef", "name"], "x"),
        "scales nothing",
    ),
    "autoscaler without requests": (lambda f: _main(f)["resources"]["requests"].pop("cpu"), "without a request"),
    "replicas beside it": (_edit("Deployment", ["spec", "replicas"], 3), "beside the autoscaler"),
    "hasty scale-down": (
        _edit("HorizontalPodAutoscaler", ["spec", "behavior", "scaleDown", "stabilizationWindowSeconds"], 0),
        "not stabilised",
    ),
    "one direction": (_edit("NetworkPolicy", ["spec", "policyTypes"], ["Ingress"]), "not both directions"),
    "open egress": (lambda f: one(f, "NetworkPolicy")["spec"]["egress"].append({}), "open to everybody"),
    "egress to the world": (
        lambda f: one(f, "NetworkPolicy")["spec"]["egress"].append(
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}
        ),
        "open to everybody",
    ),
    "any port": (lambda f: one(f, "NetworkPolicy")["spec"]["ingress"][0].pop("ports"), "with any port"),
    "no DNS": (lambda f: one(f, "NetworkPolicy")["spec"]["egress"].pop(0), "no way out to DNS"),
    "no NATS": (lambda f: one(f, "NetworkPolicy")["spec"]["egress"].pop(1), "no way out to NATS"),
    "policy of nobody": (_edit("NetworkPolicy", ["spec", "podSelector", "matchLabels"], {"a": "b"}), "selects no pod"),
    "wrong selector": (
        lambda f: one(f, "Service", "bitactor-bitactor")["spec"]["selector"].update(x="y"),
        "selects 0 kinds",
    ),
    "wrong port": (
        lambda f: one(f, "Service", "bitactor-bitactor")["spec"]["ports"][0].update(targetPort="x"),
        "no container has the port",
    ),
    "secret in the environment": (
        lambda f: _main(f)["env"].append({"name": "T", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}),
        "a secret in the environment",
    ),
    "plain text": (
        lambda f: one(f, "ConfigMap", "bitactor-config")["data"].update(
            {"bitactor.toml": "plain_text_on_loopback = true"}
        ),
        "without TLS",
    ),
    "key in a ConfigMap": (
        lambda f: one(f, "ConfigMap", "bitactor-config")["data"].update({"k": "-----BEGIN PRIVATE KEY-----"}),
        "has a secret",
    ),
    "no namespace": (_edit("Deployment", ["metadata", "namespace"], "default"), "no namespace"),
    "no labels": (_edit("Deployment", ["metadata", "labels"], {}), "not labelled"),
}


@pytest.fixture(scope="module")
def sound():
    return render(CLUSTER)


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(sound, mistake):
    found = copy.deepcopy(sound)
    plant, message = PLANTED[mistake]
    assert k8s_rules.problems(found) == []
    plant(found)
    assert any(message in text for text in k8s_rules.problems(found)), k8s_rules.problems(found)


def test_every_rule_has_a_planted_mistake(sound):
    hit = set()
    for plant, _ in PLANTED.values():
        found = copy.deepcopy(sound)
        plant(found)
        hit |= {text.partition(":")[0] for text in k8s_rules.problems(found)}
    assert hit == {rule.__name__ for rule in k8s_rules.RULES}


# --- values ---

REFUSED = [
    ({}, "nats.url: mode cluster"),
    ({**STANDALONE, "replicaCount": 3}, "replicaCount"),
    ({**STANDALONE, "config": {"engine": {"shrads": 1}}}, "shrads"),
    ({**STANDALONE, "config": {"ingest": {"plain_text_on_loopback": True}}}, "ingest"),
    ({**STANDALONE, "image": {"tag": "latest"}}, "latest|not"),
    ({**STANDALONE, "resources": {"limits": None}}, "limits"),
    ({**STANDALONE, "podUser": 0}, "podUser"),
    ({**STANDALONE, "tls": {"source": "none"}}, "source"),
    ({**STANDALONE, "tls": {"source": "secret"}}, "tls.existingSecret: needed"),
    ({**STANDALONE, "tls": {"source": "certManager"}}, "tls.certManager.issuerRef: needed"),
    ({**STANDALONE, "shutdown": {"graceSeconds": 35}}, "shutdown.graceSeconds: more than"),
    ({**STANDALONE, "app": {"files": {"a.py": "", "b.py": ""}}}, "app.file: several"),
    ({**STANDALONE, "app": {"files": {"a.py": ""}, "directory": "/x"}}, "app: one of"),
    ({**STANDALONE, "app": {"file": "../a.py"}}, "file"),
    ({**CLUSTER, "autoscaling": {"minReplicas": 12}}, "autoscaling.maxReplicas"),
    ({**CLUSTER, "podDisruptionBudget": {"minAvailable": "0%x"}}, "minAvailable"),
    ({"nats": {"url": "http://nats:4222"}}, "url"),
    ({"nats": {"url": "nats://user:secret@nats:4222"}}, "url"),
]


def test_values_that_cannot_work_are_refused_by_name():
    got = k8s_chart.render_all([Case("", values) for values, _ in REFUSED])
    for (values, message), answer in zip(REFUSED, got, strict=True):
        assert isinstance(answer, Refused), values
        assert re.search(message, str(answer)), f"{values}: {answer}"


def test_the_configuration_is_one_that_the_service_takes(tmp_path, rendered):
    for (name, version), found in rendered.items():
        text = one(found, "ConfigMap", "bitactor-config")["data"]["bitactor.toml"]
        file = tmp_path / f"{name}-{version}.toml"
        file.write_text(text)
        settings = load({}, config=file, environ={}, files=False)
        assert settings.ingest.port == 9090
        assert settings.auth.file is not None
        assert settings.tls.cert_file is not None


def test_the_example_app_compiles_and_counts():
    import bitactor as ba
    from bitactor.cli.apps import load_app

    app = load_app(str(CHART / "files/app.py"))
    with ba.Engine(app) as engine:
        for value in (3.0, -1.0, 2.0):
            engine.send(kind="reading", key=7, value=value)
        engine.flush()
        state = engine.state("readings", key=7)
    assert (state.count, state.total, state.smallest, state.largest) == (3, 4.0, -1.0, 3.0)


def test_schema_and_readme_are_those_that_the_tool_makes():
    """After a wanted change: python tools/chart_page.py."""
    assert (CHART / "values.schema.json").read_text() == chart_page.schema()
    assert (CHART / "README.md").read_text() == chart_page.page()


def test_every_value_has_a_description_and_a_default():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def walk(at, given, path):
        for name, about in at["properties"].items():
            where = f"{path}.{name}"
            assert about.get("description"), where
            if name == "global":
                continue
            if given is not None:
                assert name in given, where
            if "properties" in about:
                assert about["additionalProperties"] is False or where.startswith(".resources."), where
                inner = given.get(name) if given is not None and name not in {"config", "metadata"} else None
                walk(about, inner, where)
        assert given is None or set(given) <= set(at["properties"]), path

    walk(schema, values, "")


# --- modes ---


def test_cluster_is_a_deployment_of_three_with_autoscaler_and_budget(sound):
    scaler = one(sound, "HorizontalPodAutoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 10)
    assert "replicas" not in one(sound, "Deployment", "bitactor-bitactor")["spec"]
    assert one(sound, "PodDisruptionBudget")["spec"]["minAvailable"] == "50%"
    fixed = render({**CLUSTER, "autoscaling": {"enabled": False}})
    assert one(fixed, "Deployment")["spec"]["replicas"] == 3
    assert {doc["kind"] for doc in fixed} == {doc["kind"] for doc in sound} - {"HorizontalPodAutoscaler"}


def test_standalone_is_one_with_a_volume_and_no_way_out_but_dns():
    found = render(STANDALONE)
    spec = one(found, "StatefulSet")["spec"]
    assert spec["replicas"] == 1
    assert spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert len(one(found, "NetworkPolicy")["spec"]["egress"]) == 1
    assert not {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"} & {doc["kind"] for doc in found}


def test_names_are_the_documented_ones(sound):
    names = {(doc["kind"], doc["metadata"]["name"]) for doc in sound}
    assert {
        ("Deployment", "bitactor-bitactor"),
        ("ConfigMap", "bitactor-config"),
        ("ServiceAccount", "bitactor-sa"),
        ("Service", "bitactor-bitactor"),
        ("Service", "bitactor-bitactor-admin"),
    } <= names
    assert one(sound, "Service", "bitactor-bitactor")["spec"]["ports"][0]["port"] == 9090


def test_a_changed_app_or_setting_restarts_pods_and_a_changed_token_does_not():
    def sums(**more):
        notes = pod_template(render({**STANDALONE, **more}))["metadata"]["annotations"]
        return notes["checksum/config"], notes["checksum/app"]

    config, app = sums()
    assert sums() == (config, app)
    assert sums(config={"engine": {"shards": 2}})[0] != config
    assert sums(app={"files": {"app.py": "x = 1\n"}})[1] != app
    assert sums(auth={"generation": 2}, tls={"generation": 2}) == (config, app)


def test_the_autoscaler_reads_pods_metrics_where_the_api_is():
    def kinds(wish):
        found = render({**CLUSTER, "autoscaling": {"customMetrics": wish, "signalsPerSecond": 1000}})
        return [metric["type"] for metric in one(found, "HorizontalPodAutoscaler")["spec"]["metrics"]]

    assert kinds(True) == ["ContainerResource", "Pods", "Pods"]
    assert kinds(False) == kinds("auto") == ["ContainerResource"]


# --- other tools ---


def test_the_dockerfile_is_clean_for_hadolint():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not here")
    done = subprocess.run([hadolint, str(ROOT / "k8s/Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    planted = (ROOT / "k8s/Dockerfile").read_text().replace("FROM scratch", "FROM debian:latest")
    done = subprocess.run([hadolint, "-"], input=planted, capture_output=True, text=True, check=False)
    assert "DL3007" in done.stdout
