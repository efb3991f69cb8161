"""Renders the chart without a cluster: with the helm on PATH, else with Helm's own engine out of helm-python-sdk.

`render` gives the documents, or raises Refused with Helm's words. The engine is a Go library: it runs in a process
of its own, one for many renderings (`render_all`). What is random in them (keys, tokens) is made the same by `settled`.
"""

import copy
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "k8s/helm/bitactor"
NEWEST = "1.37.0"
APIS = ("monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PrometheusRule")

_ENGINE = """
import json, sys
import helm_python as helm
jobs, out = json.load(sys.stdin), []
with helm.Chart.load(sys.argv[1]) as chart:
    for values in jobs:
        try:
            out.append({"text": "\\n---\\n".join(chart.render(values, name="bitactor", namespace="bitactor").values())})
        except helm.HelmError as error:
            out.append({"error": str(error)})
json.dump(out, sys.stdout)
"""


class Refused(Exception):
    """Helm did not render it."""


@dataclass
class Case:
    """Values under a name, as of a version of Kubernetes."""

    name: str
    values: dict = field(default_factory=dict)
    version: str = NEWEST

    def given(self):
        """Values with the version, which the engine of the SDK cannot be told otherwise."""
        return {"kubeVersion": self.version, **self.values}


def renderer():
    """What renders here: "helm", "helm-python-sdk", or None."""
    if shutil.which("helm"):
        return "helm"
    return "helm-python-sdk" if importlib.util.find_spec("helm_python") else None


def render_all(cases, chart=CHART):
    """Documents of each case, or a Refused in its place."""
    if renderer() == "helm":
        return [_with_helm(case, chart) for case in cases]
    given = json.dumps([case.given() for case in cases])
    command = [sys.executable, "-c", _ENGINE, str(chart)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [documents(one["text"]) if "text" in one else Refused(one["error"]) for one in json.loads(done.stdout)]


def render(values, version=NEWEST, chart=CHART):
    """Documents of one case; Refused."""
    (got,) = render_all([Case("", values, version)], chart)
    if isinstance(got, Refused):
        raise got
    return got


def _with_helm(case, chart):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(case.given(), file)
        file.flush()
        command = ["helm", "template", "bitactor", str(chart), "--namespace", "bitactor", "--values", file.name]
        command += ["--kube-version", case.version]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Refused(done.stderr) if done.returncode else documents(done.stdout)


def documents(text):
    """The YAML documents of a text, in the order of kind and name."""
    found = [one for one in yaml.safe_load_all(text) if one]
    return sorted(found, key=lambda one: (one["kind"], one["metadata"]["name"]))


def settled(found):
    """The same documents with what is drawn or dated replaced by its kind, for comparison with what was kept."""
    found = copy.deepcopy(found)
    for doc in found:  # what comes from files of the chart has tests of its own
        if doc["kind"] == "ConfigMap" and "bitactor.toml" not in doc["data"]:
            doc["data"] = dict.fromkeys(doc["data"], "A FILE")
        if doc["kind"] == "PrometheusRule":
            doc["spec"] = "A FILE"
        if doc["kind"] == "Secret":
            doc["data"] = dict.fromkeys(doc["data"], "MADE")
            if "bitactor/ends" in doc["metadata"].get("annotations", {}):
                doc["metadata"]["annotations"]["bitactor/ends"] = "MADE"
    return yaml.safe_dump_all(found, sort_keys=True, width=120, default_flow_style=None)


def one(found, kind, name=None):
    """The document of that kind (and name)."""
    (got,) = [doc for doc in found if doc["kind"] == kind and name in (None, doc["metadata"]["name"])]
    return got


def pod_template(found):
    """The template of the service's pods."""
    workloads = [doc for doc in found if doc["kind"] in {"Deployment", "StatefulSet"}]
    return workloads[0]["spec"]["template"]


def cases(full):
    """The matrix: every version of Kubernetes with the two modes, and with the newest each switch thrown."""
    versions = [f"1.{minor}.0" for minor in (range(28, 38) if full else (28, 31, 34, 37))]
    cluster = {"nats": {"url": "tls://nats.nats.svc:4222"}}
    standalone = {"mode": "standalone"}
    given = {
        "cluster": cluster,
        "standalone": standalone,
        "cluster-everything": {
            **cluster,
            "nats": {
                "url": "tls://a:4222,tls://b:4222",
                "credentials": {"existingSecret": "nats-account"},
                "ca": {"existingSecret": "nats-ca"},
            },
            "app": {"files": {"market.py": "import bitactor as ba\n"}},
            "config": {"engine": {"shards": 2}, "limits": {"window_signals": 100_000}},
            "tls": {"source": "secret", "existingSecret": "mine", "clientCertificates": {"existingSecret": "theirs"}},
            "auth": {"existingSecret": "who", "admin": {"existingSecret": "admin"}},
            "autoscaling": {"customMetrics": True, "signalsPerSecond": 200_000},
            "monitoring": {
                "serviceMonitor": {"enabled": True},
                "prometheusRule": {"enabled": True},
                "labels": {"release": "prometheus"},
            },
            "networkPolicy": {
                "clients": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
                "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": 4318}]}],
            },
            "commonLabels": {"team": "data"},
            "commonAnnotations": {"contact": "data@example.com"},
            "metadata": {"pod": {"annotations": {"a": "b"}}, "service": {"labels": {"c": "d"}}},
            "env": [{"name": "BITACTOR_LOGGING__LEVEL", "value": "debug"}],
            "priorityClassName": "high",
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "data", "operator": "Exists"}],
            "image": {"digest": "sha256:" + 64 * "a", "pullSecrets": [{"name": "registry"}]},
        },
    }
    every = [Case(name, values, version) for version in versions for name, values in given.items()]
    if full:
        every += [
            Case("fixed", {**cluster, "autoscaling": {"enabled": False}, "replicas": 5}),
            Case(
                "without-policies",
                {**cluster, "networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
            ),
            Case(
                "cert-manager",
                {**standalone, "tls": {"source": "certManager", "certManager": {"issuerRef": {"name": "ca"}}}},
            ),
            Case("app-in-image", {**standalone, "app": {"directory": "/opt/app", "file": "market.py:app"}}),
            Case("app-in-volume", {**standalone, "app": {"volume": {"persistentVolumeClaim": {"claimName": "apps"}}}}),
            Case("app-in-configmap", {**standalone, "app": {"existingConfigMap": "apps", "file": "market.py"}}),
            Case("no-prestop", {**standalone, "shutdown": {"preStopSeconds": 0}}),
            Case("own-account", {**standalone, "serviceAccount": {"create": False, "name": "mine"}}),
            Case("load-balancer", {**standalone, "service": {"type": "LoadBalancer", "port": 443}}),
            Case("storage", {**standalone, "persistence": {"storageClass": "fast", "size": "100Gi", "retain": False}}),
        ]
    return every


GOLDEN = ROOT / "tests/golden"


def golden_cases():
    """What is kept in tests/golden."""
    return [case for case in cases(full=False) if case.version == NEWEST]


def digest(text):
    """Of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case, found in zip(golden_cases(), render_all(golden_cases()), strict=True):
        (GOLDEN / f"chart-{case.name}.yaml").write_text(settled(found))
