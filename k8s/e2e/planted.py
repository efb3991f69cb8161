"""Faults that are planted, and the step that finds each: run.py --plant NAME|all|list.

A fault is an edit of the chart (in a copy of it, which is then installed), or of the app. What a step has to say of it
is an expression in the table. All of it is in two namespaces of its own, which are made anew and removed afterwards.
"""

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import alone as standalone
import faults
import monitoring
import steps
from kube import CHART, Bad, Failed, Load, Service, get, kubectl

STANDALONE = "standalone"
SPACES = ("bitactor-planted", "bitactor-planted-alone")


class Plant(NamedTuple):
    """A fault: its step, what is done, what finds it; (file of the chart, text, instead); or an edit of the app."""

    step: str
    what: str
    finds: Callable
    says: str
    edit: tuple[str, str, str] | None = None
    app: tuple[str, str] | None = None
    mode: str = "cluster"


def rolled(service):
    """Upgrade so that pods are replaced, which have to become ready."""
    annotations = {"planted": service.chart.parent.name}
    service.timeout = "90s"
    service.upgrade(**service.given, metadata={"pod": {"annotations": annotations}})
    yield "rolled out", "with the fault"


def with_upgrade(step):
    """The step after an upgrade to what is planted."""

    def run(service):
        service.upgrade(**service.given)
        service.client_pod()
        yield from step(service)

    return run


def under(*every):
    """Faults of step 3 and 6."""
    return with_upgrade(lambda service: steps.each_exact(service, every))


def migrated_without_import(service):
    """Step 6b with its import left out."""
    service.upgrade(**service.given)
    service.client_pod()
    with Load(service, steps.RATE):
        pass
    kept, standalone.in_volume = standalone.in_volume, lambda *_: "left out"
    try:
        yield from standalone.migrated(service)
    finally:
        standalone.in_volume = kept


def struck(service):
    """Step 3b for this release alone."""
    service.upgrade(**service.given)
    yield from steps.struck(service)


def taken_away(service):
    """Step 8 for this release alone, without its namespace."""
    service.upgrade(**service.given)
    service.helm("uninstall", None, "--wait")
    try:
        yield "left", ", ".join(steps.left(service))
    finally:
        service.k("delete", "configmap", "-l", f"app.kubernetes.io/instance={service.release}")


POD, POLICY, HELPERS = "templates/_pod.tpl", "templates/networkpolicy.yaml", "templates/_helpers.tpl"
AVAILABILITY, ACCOUNT = "templates/availability.yaml", "templates/serviceaccount.yaml"
SELECTOR = '  selector:\n    {{- include "bitactor.selector" . | nindent 4 }}\n  ports:\n    - name: signals'
FROM = '        - podSelector:\n            matchLabels:\n              {{ include "bitactor.clientLabel" . }}: "true"'
BINDING = """apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: planted, namespace: {{ .Release.Namespace }}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: {{ include "bitactor.account" . }}, namespace: {{ .Release.Namespace }}}]
---
apiVersion: v1
kind: ServiceAccount"""
WRAPPER = """command: [/opt/bitactor/bin/python, -c, "import subprocess as s; s.run(['bitactor', 'serve'])"]"""
CONFIG_MAP = '"part" "config")) "as" "configMap")'
KEEP = '"part" "config")) "as" "configMap" "annotations" (dict "helm.sh/resource-policy" "keep"))'

PLANTS = {
    "egress": Plant(
        "1",
        "the NetworkPolicy does not name NATS",
        rolled,
        r"not ready|is not known|NATS|nats",
        (POLICY, '    {{- if not (include "bitactor.standalone" .) }}\n    - to:', "    {{- if false }}\n    - to:"),
    ),
    "plain": Plant(
        "1",
        "the configuration has no certificate, so signals would be taken in the clear",
        rolled,
        r"tls\.cert_file|without TLS|TLS",
        (
            HELPERS,
            '      "tls" (dict "cert_file" "/etc/bitactor/tls/tls.crt" "key_file" "/etc/bitactor/tls/tls.key")\n',
            '      "tls" dict\n',
        ),
    ),
    "grace": Plant(
        "1",
        "the grace is shorter than the time in which the pod leaves the Service",
        rolled,
        r"less than terminationGracePeriodSeconds",
        (POD, "{{ .Values.shutdown.graceSeconds }}", "1"),
    ),
    "selector": Plant(
        "1",
        "the Service selects pods of another release",
        with_upgrade(steps.validated),
        r"FAIL: bitactor-bitactor has 0 ready",
        ("templates/service.yaml", SELECTOR, SELECTOR.replace("\n  ports", "x\n  ports")),
    ),
    "late": Plant(
        "2",
        "the app counts a flight as late one minute too early",
        with_upgrade(steps.flights_sent),
        r"keys differ from the group-by",
        app=("signal.value > LATE_MINUTES", "signal.value >= LATE_MINUTES"),
    ),
    "budget": Plant(
        "3",
        "the PodDisruptionBudget allows no eviction",
        under(faults.evicted),
        r"the budget refuses the first eviction",
        (AVAILABILITY, "{{ .Values.podDisruptionBudget.minAvailable }}", "100%"),
    ),
    "no-budget": Plant(
        "3",
        "the PodDisruptionBudget keeps no pod",
        under(faults.evicted),
        r"the budget allowed a second eviction at once",
        (AVAILABILITY, "{{ .Values.podDisruptionBudget.minAvailable }}", "0"),
    ),
    "wrapper": Plant(
        "3",
        "a process that keeps SIGTERM to itself stands before the service",
        under(faults.pod_deleted),
        r"did not stop in order",
        (POD, "args: [serve]", WRAPPER),
    ),
    "no-prestop": Plant(
        "3",
        "no preStop: the pod drains while it is still sent to",
        under(faults.pod_deleted),
        r"before it had left the Service",
        (POD, "if gt (int .Values.shutdown.preStopSeconds) 0", "if false"),
    ),
    "requests": Plant(
        "4",
        "containers without requests, so that use has nothing to be a share of",
        steps.autoscaled,
        r"the autoscaler reads CPU: not within",
        (POD, "        {{- toYaml .Values.resources | nindent 8 }}", "        {}"),
    ),
    "inward": Plant(
        "5",
        "the NetworkPolicy lets every pod in to the signals' port",
        with_upgrade(steps.confined),
        r"a pod without the label reaches signals",
        (POLICY, FROM, "        - podSelector: {}"),
    ),
    "outward": Plant(
        "5",
        "the NetworkPolicy lets the service out to everywhere",
        with_upgrade(steps.confined),
        r"the service reaches a pod that its policy does not name",
        (POLICY, "  egress:\n", "  egress:\n    - {}\n"),
    ),
    "role": Plant(
        "5",
        "the service's account may look at the namespace",
        with_upgrade(steps.confined),
        r"the account's own token: list pods",
        (ACCOUNT, "apiVersion: v1\nkind: ServiceAccount", BINDING),
    ),
    "root": Plant(
        "5",
        "the root file system can be written",
        with_upgrade(steps.confined),
        r"the root file system is not mounted read-only",
        (POD, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ),
    "token": Plant(
        "5",
        "the account's token is mounted",
        with_upgrade(steps.confined),
        r"the account's token is mounted",
        (POD, "automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    ),
    "emptied": Plant(
        "3b",
        "the log is in the pod's temporary space, so a pod that is replaced has lost it",
        struck,
        r"client failed|is there,|everything was acknowledged|acknowledged signals",
        (POD, "{name: data, mountPath: /var/lib/bitactor}", "{name: temporary, mountPath: /var/lib/bitactor}"),
        mode=STANDALONE,
    ),
    "volume": Plant(
        "6",
        "the log is in the pod's temporary space, and not on its volume",
        under(faults.pod_deleted),
        r"not exact|the client failed|the client does not end",
        (POD, "{name: data, mountPath: /var/lib/bitactor}", "{name: temporary, mountPath: /var/lib/bitactor}"),
        mode=STANDALONE,
    ),
    "monitor": Plant(
        "7",
        "the ServiceMonitor selects by a label that no Service has",
        monitoring.monitored,
        r"Prometheus scrapes: not within",
        ("templates/monitoring.yaml", "bitactor/port: admin", "bitactor/port: metrics"),
        mode=STANDALONE,
    ),
    "rule": Plant(
        "7",
        "an alert names a metric that there is not",
        monitoring.monitored,
        r"alerts name metrics without series: \['bitactor_is_ready'\]",
        ("files/rules/bitactor.yml", "expr: bitactor_ready == 0", "expr: bitactor_is_ready == 0"),
        mode=STANDALONE,
    ),
    "kept": Plant(
        "8",
        "the ConfigMap stays when the release is uninstalled",
        taken_away,
        r"left behind: \['ConfigMap/bitactor-config'\]",
        ("templates/configmap.yaml", CONFIG_MAP, KEEP),
        mode=STANDALONE,
    ),
    "import": Plant(
        "6b",
        "the volume is not imported before replicas start",
        migrated_without_import,
        r"migrated state differs",
        mode=STANDALONE,
    ),
}


def planted(name, image):
    """Plant a fault and run what should find it; (whether it was found, what was said)."""
    one = PLANTS[name]
    service = one_pod(image) if one.mode == STANDALONE else replicas(image)
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        service.chart = Path(shutil.copytree(CHART, Path(folder) / "bitactor"))
        if one.edit:
            replaced(service.chart / one.edit[0], one.edit[1], one.edit[2])
        if one.app:
            assert service.app.count(one.app[0]) == 1
            service.app = service.app.replace(*one.app)
        said = []
        try:
            said += [seen for _, seen in one.finds(service) if isinstance(seen, Bad)]
        except Failed as error:
            said += [str(error)]
    text = "\n".join(said).replace(str(service.chart), "CHART")
    found = re.search(f"[^;\n]*(?:{one.says})[^;\n]*", text)
    return bool(found), found[0].strip() if found else text or "nothing: the step passed"


def cleared(wait):
    """Remove the namespaces."""
    kubectl("delete", "namespace", *SPACES, "--ignore-not-found", f"--wait={str(wait).lower()}")


def one_pod(image):
    """The service of step 6."""
    service = standalone.alone(image)
    service.namespace = SPACES[1]
    service.namespace_there()
    return service


def replicas(image):
    """The service of steps 1 to 5, by Helm alone, over a NATS that is made when it is not there."""
    service = Service(image, namespace=SPACES[0], mode="cluster")
    service.given = steps.helm_values(service, **steps.LIGHT, autoscaling={"enabled": False})
    service.namespace_there()
    if not get("statefulset", "nats", service.namespace):
        steps.nats_with_helm(service)
    return service


def replaced(file, before, after):
    """Change a text that is there once."""
    text = file.read_text()
    if text.count(before) != 1:
        raise Failed(f"{file.name} has {text.count(before)} times {before!r}; mend the table of planted faults")
    file.write_text(text.replace(before, after))
