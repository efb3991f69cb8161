"""Step 7: monitors, rules and dashboards with a real Prometheus.

The real CustomResourceDefinitions take what the chart makes; a Prometheus in the cluster scrapes by the selectors of
the ServiceMonitor; every metric that an alert names has series, and every query of a panel answers with some. The
operator is not run: its place is taken by a scrape configuration made from the ServiceMonitor as it is in the cluster.
The definitions are those of the operator's Go module, or the files that CRDS names.
"""

import json
import os
import re
import shutil
import time
from pathlib import Path

import cluster
import steps
import yaml
from kube import Failed, Load, apply, get, kubectl, run, wait_for

OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
SPACE = "monitoring"


def definitions():
    """The folder with the CustomResourceDefinitions."""
    if os.environ.get("CRDS"):
        return Path(os.environ["CRDS"])
    if not shutil.which("go"):
        raise Failed("no CustomResourceDefinitions: give CRDS=folder, or put go on the PATH")
    said = json.loads(run("go", "mod", "download", "-json", OPERATOR, timeout=600))
    return Path(said["Dir"]) / "example/prometheus-operator-crd"


def monitored(service):
    """The step."""
    for kind in ("servicemonitors", "prometheusrules"):
        (file,) = definitions().glob(f"*_{kind}.yaml")
        kubectl("apply", "--server-side", "-f", file)
        kubectl("wait", "--for=condition=Established", f"crd/{kind}.monitoring.coreos.com", "--timeout=60s")
    service.upgrade(**service.given)
    monitor = get("servicemonitor", service.name, service.namespace)
    rules = get("prometheusrule", service.name, service.namespace)
    if not monitor or not rules:
        raise Failed("with the API there, the chart made no ServiceMonitor or no PrometheusRule")
    count = sum(len(group["rules"]) for group in rules["spec"]["groups"])
    yield "definitions", f"ServiceMonitor and PrometheusRule with {count} alerts are accepted"
    prometheus(service, monitor, rules)
    service.client_pod()
    refuse_once(service)
    wait_for("Prometheus scrapes", 120, lambda: query("up == 1"), every=1)
    with Load(service, steps.RATE) as load:
        time.sleep(75)  # several scrapes, so that rates are there
    yield "scraped", f"{len(query('up == 1'))} pods through the ServiceMonitor's selectors; {load.said()}"
    yield from names_are_there(service, rules)
    yield from panels_answer(service)
    firing = [one["metric"]["alertname"] for one in query('ALERTS{alertstate="firing"}')]
    if firing:
        raise Failed(f"alerts fire on a sound service: {firing}")
    states = json.loads(inside("/api/v1/rules"))["data"]["groups"]
    sick = [rule["name"] for group in states for rule in group["rules"] if rule["health"] != "ok"]
    if sick:
        raise Failed(f"Prometheus cannot evaluate {sick}")
    yield "alerts", f"{sum(len(group['rules']) for group in states)} are evaluated, none fires"
    kubectl("delete", "namespace", SPACE, "--wait=false")


def prometheus(service, monitor, rules):
    """A Prometheus in a namespace of its own, which the NetworkPolicy lets in."""
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    wait_for("the account", 60, lambda: get("serviceaccount", "default", SPACE))
    endpoint = monitor["spec"]["endpoints"][0]
    secret = endpoint["authorization"]["credentials"]
    token = get("secret", secret["name"], service.namespace)["data"][secret["key"]]
    files = {
        "prometheus.yml": yaml.safe_dump(configuration(monitor, endpoint)),
        "rules.yml": yaml.safe_dump(rules["spec"]),
    }
    meta = {"name": "prometheus", "namespace": SPACE}
    container = {
        "name": "main",
        "image": cluster.prometheus_image(),
        "imagePullPolicy": "IfNotPresent",
        "args": ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/data"],
        "volumeMounts": [
            {"name": "configuration", "mountPath": "/etc/prometheus"},
            {"name": "token", "mountPath": "/token"},
            {"name": "data", "mountPath": "/data"},
        ],
    }
    spec = {
        "containers": [container],
        "volumes": [
            {"name": "configuration", "configMap": {"name": "prometheus"}},
            {"name": "token", "secret": {"secretName": "prometheus"}},
            {"name": "data", "emptyDir": {}},
        ],
    }
    kubectl("-n", SPACE, "delete", "pod", "prometheus", "--ignore-not-found", "--grace-period=1")
    apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": files},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"token": token}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec},
    )
    kubectl("-n", SPACE, "wait", "--for=condition=Ready", "pod/prometheus", "--timeout=120s")


def targets(monitor, endpoint):
    """Pods behind the Services that the ServiceMonitor selects, by its labels, its namespaces and its port's name."""
    wanted = ",".join(f"{name}={value}" for name, value in monitor["spec"]["selector"]["matchLabels"].items())
    for space in monitor["spec"]["namespaceSelector"]["matchNames"]:
        for found in get("services", namespace=space, selector=wanted):
            name = found["metadata"]["name"]
            for part in get("endpointslices", namespace=space, selector=f"kubernetes.io/service-name={name}"):
                (port,) = [one["port"] for one in part["ports"] if one["name"] == endpoint["port"]]
                for one in part["endpoints"]:
                    labels = {"namespace": space, "service": name, "pod": one["targetRef"]["name"]}
                    yield {"targets": [f"{one['addresses'][0]}:{port}"], "labels": labels}


def configuration(monitor, endpoint):
    """A scrape configuration equal to the ServiceMonitor. Static: Debian's Prometheus cannot ask Kubernetes."""
    scrape = {
        "job_name": monitor["metadata"]["name"],
        "metrics_path": endpoint["path"],
        "scrape_interval": "5s",
        "authorization": {"type": "Bearer", "credentials_file": "/token/token"},
        "static_configs": list(targets(monitor, endpoint)),
    }
    return {
        "global": {"evaluation_interval": "5s"},
        "rule_files": ["/etc/prometheus/rules.yml"],
        "scrape_configs": [scrape],
    }


def inside(path):
    """Prometheus' answer, through the API server."""
    return kubectl("get", "--raw", f"/api/v1/namespaces/{SPACE}/pods/prometheus:9090/proxy{path}")


def query(expression):
    """The vector of an expression."""
    from urllib.parse import quote

    said = json.loads(inside(f"/api/v1/query?query={quote(expression)}"))
    return said["data"]["result"]


def refuse_once(service):
    """A connection with a bad token, so that there is a refusal to count."""
    code = (
        "import bitactor as ba, sys\n"
        "open('/tmp/bad', 'w').write('x' * 43)\n"
        "try: ba.Client(sys.argv[1], producer='x', token_file='/tmp/bad', ca_file='/secrets/ca.crt', connect_s=10)\n"
        "except Exception as e: print(type(e).__name__)"
    )
    service.inside(code, service.address, check=False)


def names_are_there(service, rules):
    """Every metric that an alert names gives series; those of replicas, where there are replicas."""
    named = set()
    for group in rules["spec"]["groups"]:
        for rule in group["rules"]:
            named |= set(re.findall(r"\b(?:bitactor|process)_[a-z_]+", rule["expr"]))
    if service.mode == "standalone":
        named = {name for name in named if not name.startswith("bitactor_lanes_")}
    silent = sorted(name for name in named if not query(name))
    if silent:
        raise Failed(f"alerts name metrics without series: {silent}")
    yield "metrics of alerts", f"{len(named)} metrics, each with series"


def panels_answer(service):
    """Every query of every dashboard, as it is in the cluster's ConfigMaps, gives series."""
    boards = get("configmaps", namespace=service.namespace, selector="grafana_dashboard=1")
    silent, count = [], 0
    for board in boards:
        for text in board["data"].values():
            for panel in json.loads(text)["panels"]:
                for target in panel.get("targets", []):
                    count += 1
                    expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
                    if not query(expression):
                        silent.append(f"{panel['title']}: {target['expr']}")
    if silent or not count:
        raise Failed(f"{len(silent)} of {count} queries of panels give nothing: {silent[:5]}")
    yield "panels", f"{count} queries of {len(boards)} dashboards, each with series"
