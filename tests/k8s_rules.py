"""What the chart's manifests must hold, whatever the values: `problems(documents)` names each breach.

The restricted Pod Security Standard in full, and what makes an installation sound beside it. Each rule is a function of
all documents; tests/test_k8s_chart.py plants a mistake for each.
"""

import re
from collections.abc import Iterator

WORKLOADS = {"Deployment", "StatefulSet"}
SECRET_WORDS = re.compile(r"PRIVATE KEY|token_sha256|token\s*=", re.IGNORECASE)
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
}


def pods(found) -> Iterator[tuple[str, dict, dict]]:
    """Each pod or template of one: name, metadata, spec."""
    for doc in found:
        name = f"{doc['kind']}/{doc['metadata']['name']}"
        if doc["kind"] in WORKLOADS:
            template = doc["spec"]["template"]
            yield name, template["metadata"], template["spec"]
        elif doc["kind"] == "Pod":
            yield name, doc["metadata"], doc["spec"]


def containers(spec) -> list[dict]:
    """All containers of a pod."""
    return [*spec.get("initContainers", []), *spec["containers"], *spec.get("ephemeralContainers", [])]


def restricted(found) -> Iterator[str]:  # noqa: PLR0912 (a list of what is not allowed)
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, level restricted."""
    for name, _, spec in pods(found):
        context = spec.get("securityContext", {})
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{name}: {key}"
        for volume in spec.get("volumes", []):
            if not set(volume) - {"name"} <= VOLUMES:
                yield f"{name}: volume {volume['name']} is of a kind that is not allowed"
        if context.get("sysctls"):
            yield f"{name}: sysctls"
        if context.get("runAsUser") == 0:
            yield f"{name}: runs as root"
        for one in containers(spec):
            own = one.get("securityContext", {})
            where = f"{name}/{one['name']}"
            if own.get("privileged"):
                yield f"{where}: privileged"
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: allowPrivilegeEscalation is not false"
            if own.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{where}: does not drop all capabilities"
            if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
                yield f"{where}: adds capabilities"
            if not own.get("runAsNonRoot", context.get("runAsNonRoot")) or own.get("runAsUser") == 0:
                yield f"{where}: may run as root"
            profile = own.get("seccompProfile", context.get("seccompProfile", {})).get("type")
            if profile not in {"RuntimeDefault", "Localhost"}:
                yield f"{where}: no seccomp profile"
            if own.get("procMount", "Default") != "Default":
                yield f"{where}: procMount"
            if any("hostPort" in port for port in one.get("ports", [])):
                yield f"{where}: hostPort"


def hardened(found) -> Iterator[str]:
    """Beyond the standard: read-only root, no token, no links, numeric user, resources, a fixed image."""
    for name, _, spec in pods(found):
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: a token is mounted"
        if spec.get("enableServiceLinks") is not False:
            yield f"{name}: service links"
        if not isinstance(spec.get("securityContext", {}).get("runAsUser"), int):
            yield f"{name}: no numeric user"
        for volume in spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{name}: emptyDir {volume['name']} without a limit"
            secret = volume.get("secret") or volume.get("projected")
            if secret is not None and secret.get("defaultMode") != 0o440:
                yield f"{name}: {volume['name']} can be read by all"
        for one in containers(spec):
            where = f"{name}/{one['name']}"
            if not one.get("securityContext", {}).get("readOnlyRootFilesystem"):
                yield f"{where}: root file system can be written"
            for kind in ("requests", "limits"):
                if not {"cpu", "memory"} <= set(one.get("resources", {}).get(kind, {})):
                    yield f"{where}: no {kind} of cpu and memory"
            image = one["image"]
            if "@sha256:" not in image and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
                yield f"{where}: image {image} is not fixed"


def rights(found) -> Iterator[str]:
    """No Role is needed: the service asks the API for nothing."""
    for doc in found:
        if doc["kind"] in {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}:
            yield f"{doc['kind']}/{doc['metadata']['name']}: no rights are needed"
        if doc["kind"] == "ServiceAccount" and doc.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount/{doc['metadata']['name']}: its token is mounted"


def lifecycle(found) -> Iterator[str]:
    """Three probes that ask for three things, a pause before the end, and more grace than the drain takes."""
    for doc in found:
        if doc["kind"] not in WORKLOADS:
            continue
        name, spec = doc["metadata"]["name"], doc["spec"]["template"]["spec"]
        main = spec["containers"][0]
        paths = [
            main.get(f"{one}Probe", {}).get("httpGet", {}).get("path") for one in ("startup", "readiness", "liveness")
        ]
        if paths != ["/startupz", "/readyz", "/livez"]:
            yield f"{name}: probes ask {paths}"
        toml = next((d["data"]["bitactor.toml"] for d in found if "bitactor.toml" in d.get("data", {})), "")
        drain = re.search(r"grace_s = ([\d.]+)", toml)
        pre = main.get("lifecycle", {}).get("preStop", {})
        pause = pre.get("sleep", {}).get("seconds") or next(
            (int(n) for n in re.findall(r"sleep\((\d+)\)", str(pre.get("exec", "")))), 0
        )
        if doc["kind"] == "Deployment" and not pause:
            yield f"{name}: no preStop: clients are sent to a pod that ends"
        if drain and spec.get("terminationGracePeriodSeconds", 30) <= pause + float(drain[1]):
            yield f"{name}: grace is not longer than preStop and drain"
        if not {"checksum/config", "checksum/app"} <= set(doc["spec"]["template"]["metadata"].get("annotations", {})):
            yield f"{name}: a changed configuration does not restart it"


def availability(found) -> Iterator[str]:
    """A budget that protects and can be met; an autoscaler that can reckon, and owns the number of replicas."""
    deployments = {doc["metadata"]["name"]: doc for doc in found if doc["kind"] == "Deployment"}
    for doc in found:
        name = doc["metadata"]["name"]
        if doc["kind"] == "PodDisruptionBudget":
            least = doc["spec"].get("minAvailable")
            if least in (0, "0%", None):
                yield f"{name}: the budget protects nothing"
            if least == "100%":
                yield f"{name}: the budget lets no node be drained"
        if doc["kind"] == "HorizontalPodAutoscaler":
            target = deployments.get(doc["spec"]["scaleTargetRef"]["name"])
            if target is None:
                yield f"{name}: scales nothing"
            elif "replicas" in target["spec"]:
                yield f"{name}: replicas are written beside the autoscaler"
            elif "cpu" not in target["spec"]["template"]["spec"]["containers"][0].get("resources", {}).get(
                "requests", {}
            ):
                yield f"{name}: scales by CPU without a request"
            if not doc["spec"].get("behavior", {}).get("scaleDown", {}).get("stabilizationWindowSeconds"):
                yield f"{name}: scale-down is not stabilised"


def network(found) -> Iterator[str]:
    """Both directions, and every rule with peers and ports."""
    templates = [template["labels"] for name, template, _ in pods(found) if not name.startswith("Pod/")]
    for doc in found:
        if doc["kind"] != "NetworkPolicy":
            continue
        name, spec = doc["metadata"]["name"], doc["spec"]
        if set(spec.get("policyTypes", [])) != {"Ingress", "Egress"}:
            yield f"{name}: not both directions"
        if not any(spec["podSelector"]["matchLabels"].items() <= labels.items() for labels in templates):
            yield f"{name}: selects no pod of the release"
        for direction, key in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                if not rule.get(key):
                    yield f"{name}: {direction} is open to everybody"
                elif not rule.get("ports"):
                    yield f"{name}: {direction} with any port"
                elif any("0.0.0.0/0" in str(peer.get("ipBlock", "")) for peer in rule[key]):
                    yield f"{name}: {direction} is open to everybody"
        ports = {str(port.get("port")) for rule in spec.get("egress", []) for port in rule.get("ports", [])}
        if "53" not in ports:
            yield f"{name}: no way out to DNS"
        if any(d["kind"] == "Deployment" for d in found) and "4222" not in ports:
            yield f"{name}: no way out to NATS"


def services(found) -> Iterator[str]:
    """Services select the pods, by ports that these name."""
    for doc in found:
        if doc["kind"] != "Service":
            continue
        name, selector = doc["metadata"]["name"], doc["spec"]["selector"]
        hit = [spec for _, meta, spec in pods(found) if selector.items() <= meta.get("labels", {}).items()]
        if len(hit) != 1:
            yield f"{name}: selects {len(hit)} kinds of pod"
            continue
        named = {port["name"] for one in hit[0]["containers"] for port in one.get("ports", [])}
        for port in doc["spec"]["ports"]:
            if port["targetPort"] not in named:
                yield f"{name}: no container has the port {port['targetPort']}"


def secrets(found) -> Iterator[str]:
    """Nothing secret outside Secrets, and never as an environment variable or argument; TLS always."""
    for doc in found:
        if doc["kind"] == "ConfigMap" and not doc["metadata"]["name"].endswith(("-app", "-test")):
            for key, text in doc.get("data", {}).items():
                if SECRET_WORDS.search(text) and "token_file" not in text:
                    yield f"ConfigMap/{doc['metadata']['name']}: {key} has a secret"
                if key == "bitactor.toml" and not all(word in text for word in ("cert_file", "key_file", "[auth]")):
                    yield f"ConfigMap/{doc['metadata']['name']}: serves without TLS or identities"
                if key == "bitactor.toml" and "plain_text" in text:
                    yield f"ConfigMap/{doc['metadata']['name']}: plain text"
    for name, _, spec in pods(found):
        for one in containers(spec):
            if any("secretKeyRef" in str(entry) for entry in one.get("env", [])):
                yield f"{name}: a secret in the environment"


def placed(found) -> Iterator[str]:
    """Everything is labelled as the release's and lies in its namespace."""
    for doc in found:
        labels = doc["metadata"].get("labels", {})
        name = f"{doc['kind']}/{doc['metadata']['name']}"
        if doc["metadata"].get("namespace") != "bitactor":
            yield f"{name}: no namespace"
        if labels.get("app.kubernetes.io/instance") != "bitactor" or "app.kubernetes.io/name" not in labels:
            yield f"{name}: not labelled as the release's"


RULES = (restricted, hardened, rights, lifecycle, availability, network, services, secrets, placed)


def problems(found) -> list[str]:
    """All breaches."""
    return [f"{rule.__name__}: {text}" for rule in RULES for text in rule(found)]
