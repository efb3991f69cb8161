"""What is done to a service under load; each returns when the service has recovered.

The first words of each docstring are its name in the table. Whether all was exact, the load tells (kube.Load).
"""

import json
import re
import subprocess
import time
from datetime import datetime

import yaml
from kube import PYTHON, Failed, apply, get, kubectl, status, wait_for

from bitactor.validation.kubernetes.pods import KILLER

HOST = "bitactor-e2e-host"
LEAVES_S = 4.0  # shutdown.preStopSeconds is 5; the API's clock and this one are of one machine or near
_IS_JSON = re.compile(r"\{.*\}$").match


def replaced(service, pod, seconds=240):
    """Wait until that pod is gone and all that are wanted are ready."""

    def settled():
        pods = get("pods", namespace=service.namespace, selector=service.selector)
        uids = {one["metadata"]["uid"] for one in pods}
        wanted = get(service.workload, service.name, service.namespace)["spec"]["replicas"]
        return pod["metadata"]["uid"] not in uids and len(service.pods(ready=True)) >= wanted

    wait_for(f"{service.name} without {pod['metadata']['name']}", seconds, settled)


def pod_deleted(service):
    """A pod is deleted: it leaves the Service, drains, and stops in order."""
    pod = service.pods()[0]
    name = pod["metadata"]["name"]
    follow = ["kubectl", "-n", service.namespace, "logs", "--follow", "--tail=1", name, "-c", "bitactor"]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as following:
        following.stdout.readline()  # it follows from here on
        begun = time.time()
        service.k("delete", "pod", name, "--wait=false")
        replaced(service, pod)
        in_order(following.communicate(timeout=60)[0].splitlines(), begun)


def in_order(lines, begun):
    """Failed unless a pod's last lines say that it drained after it had left the Service, and that it stopped."""
    said = {line["event"]: line["ts"] for line in map(json.loads, filter(_IS_JSON, lines))}
    if "stopped" not in said or "stopping" not in said:
        raise Failed(f"the pod did not stop in order; its last line: {lines[-1] if lines else 'none'}")
    after = datetime.fromisoformat(said["stopping"]).timestamp() - begun
    if after < LEAVES_S:
        raise Failed(f"the pod drained {after:.1f} s after it was deleted, before it had left the Service everywhere")


def process_killed(service):
    """The process in a pod is killed with -9: from the node, since inside a container its first process is immune."""
    pod = service.pods()[0]
    name, before = pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"]
    killer(service.image)
    said = kubectl("-n", HOST, "exec", "killer", "--", PYTHON, "-I", "-c", KILLER, pod["metadata"]["uid"]).strip()
    if said == "0":
        raise Failed("the process to kill was not found on the node")

    def again():
        now = get("pod", name, service.namespace)
        return now["status"]["containerStatuses"][0]["restartCount"] > before and name in [
            one["metadata"]["name"] for one in service.pods(ready=True)
        ]

    wait_for(f"{name} after kill -9", 240, again)


def killer(image):
    """A pod that sees the node's processes, in a namespace that allows it."""
    if get("pod", "killer", HOST):
        return
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOST, "labels": labels}})
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [PYTHON, "-I", "-c", "import time; time.sleep(100000)"],
        "securityContext": {"privileged": True, "runAsUser": 0},
    }
    spec = {"hostPID": True, "terminationGracePeriodSeconds": 1, "containers": [container]}
    wait_for("the account of the namespace", 60, lambda: get("serviceaccount", "default", HOST))
    apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "killer"}, "spec": spec}, namespace=HOST)
    kubectl("-n", HOST, "wait", "--for=condition=Ready", "pod/killer", "--timeout=120s")


def evict(service, pod):
    """(whether it was allowed, what was said)."""
    name = pod["metadata"]["name"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": service.namespace},
    }
    path = f"/api/v1/namespaces/{service.namespace}/pods/{name}/eviction"
    try:
        kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    except Failed as error:
        if "disruption budget" not in str(error):
            raise
        return False, str(error)
    return True, ""


def evicted(service):
    """Evictions: the budget allows one, refuses the next, and allows it when the first was replaced."""
    first, second = service.pods(ready=True)[:2]
    if not evict(service, first)[0]:
        raise Failed("the budget refuses the first eviction")
    if evict(service, second)[0]:
        raise Failed("the budget allowed a second eviction at once")
    replaced(service, first)
    wait_for("the budget allows the second eviction", 60, lambda: evict(service, second)[0], every=1)
    replaced(service, second)


def upgraded(service):
    """A rolling upgrade to changed values."""
    service.upgrade(**{**service.given, "config": {**service.given.get("config", {}), "snapshot": {"every_s": 90}}})


def app_changed(service):
    """An upgrade that changes the app."""
    changed = service.app.replace('"total": "f8"}', '"total": "f8", "after": "u8"}') + "    state.after += 1\n"
    service.upgrade(**{**service.given, "app": {"files": {"flights.py": changed}}})


def rolled_back(service):
    """Back to the release before."""
    service.helm("rollback", None, "0", "--wait")
    service.rolled_out()


def scaled(service):
    """From three replicas to five and back."""
    for count in (5, 3):
        service.k("scale", f"deployment/{service.name}", f"--replicas={count}")
        wait_for(
            f"{count} replicas",
            240,
            lambda count=count: len(service.pods(ready=True)) == count == len(service.pods()),
            every=0.5,
        )


def nats_pod_deleted(service):
    """A pod of NATS is deleted."""
    pods = get("pods", namespace=service.namespace, selector="app.kubernetes.io/name=nats")
    service.k("delete", "pod", pods[0]["metadata"]["name"], "--wait=false")
    time.sleep(2)
    service.k("rollout", "status", "statefulset/nats", "--timeout=240s")


def certificates_rotated(service):
    """A new certificate by an upgrade: no pod is restarted, and what is served has changed."""
    before = {pod["metadata"]["uid"] for pod in service.pods()}
    old = served_certificate(service)
    made = get("secret", f"{service.name}-tls", service.namespace)["metadata"]["resourceVersion"]
    service.helm("upgrade", None, "--reuse-values", "--set", f"tls.generation={made}", "--wait")
    wait_for("the new certificate", 180, lambda: served_certificate(service) != old, every=2)
    if not before <= {pod["metadata"]["uid"] for pod in service.pods()}:
        raise Failed("pods were restarted for a certificate")


def served_certificate(service):
    """The serial number of the certificate that the port shows."""
    code = (
        "import socket, ssl, sys\n"
        "c = ssl.create_default_context(cafile='/secrets/ca.crt')\n"
        "host, port = sys.argv[1].rsplit(':', 1)\n"
        "s = c.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname=host)\n"
        "print(s.getpeercert()['serialNumber'])"
    )
    return service.inside(code, service.address).strip()


def manifest(text):
    """YAML documents."""
    return [one for one in yaml.safe_load_all(text) if one]


def can_i(service, *right):
    """Whether the service's account may do it."""
    account = f"--as=system:serviceaccount:{service.namespace}:{service.release}-sa"
    return status("kubectl", "-n", service.namespace, "auth", "can-i", *right, account)[1].splitlines()[-1] == "yes"
