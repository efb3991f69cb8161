"""Step 6: the service of one pod with a volume; validated, disturbed, saved, removed, restored."""

import hashlib
import json
import time

import faults
from kube import PYTHON, Failed, Load, Service, apply, run
from steps import (
    LIGHT,
    RATE,
    SMALL,
    each_exact,
    flights_sent,
    nats_with_helm,
    started,
    tested,
    validated,
)

STANDALONE_FAULTS = (
    faults.pod_deleted,
    faults.process_killed,
    faults.upgraded,
    faults.app_changed,
    faults.rolled_back,
    faults.certificates_rotated,
)


def alone(image):
    """The service of step 6."""
    service = Service(image, namespace="bitactor-alone", mode="standalone")
    service.given = {**LIGHT, "persistence": {"size": "1Gi"}, "config": {"snapshot": {"every_s": 20}}}
    return service


def standalone(service):
    """One pod with a volume: validated, disturbed, saved, removed, restored."""
    service.namespace_there()
    begun = time.monotonic()
    service.upgrade(**service.given)
    yield "installed", f"{time.monotonic() - begun:.1f} s"
    service.client_pod()
    yield from validated(service)
    yield "helm test", tested(service)
    yield from flights_sent(service)
    yield from sized(service)
    yield from each_exact(service, STANDALONE_FAULTS)
    yield "pod start", started(service)
    yield from saved_and_restored(service)


def sized(service):
    """What the one pod takes at stated rates, by its own metrics."""
    for rate in (1_000, 10_000, 100_000, 400_000):
        with Load(service, rate) as load:
            before, begun = service.metrics(), time.monotonic()
            time.sleep(15)
            after, took = service.metrics(), time.monotonic() - begun
        cores = (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / took
        log = (after["bitactor_log_bytes_total"] - before["bitactor_log_bytes_total"]) / took
        memory = after["process_resident_memory_bytes"] / 1048576
        rates = f"{load.figures['per_second']:,} a second: {1000 * cores:.0f}m CPU, {memory:.0f} MiB"
        yield f"at {rate:,} signals/s", f"{rates}, {log / 1e6:.2f} MB/s of log"


def saved_and_restored(service):
    """Backup beside the running service, uninstall with the volume, restore into a new one: the same state."""
    before = {actor: digest(service, actor) for actor in ("by_carrier", "by_aircraft", "readings")}
    pod = f"{service.name}-0"
    service.k(
        "exec", pod, "--", "/opt/bitactor/bin/bitactor", "log", "backup", "/tmp/backup.tar", "/var/lib/bitactor/data"
    )
    code = "import shutil, sys; shutil.copyfileobj(open('/tmp/backup.tar', 'rb'), sys.stdout.buffer)"
    saved = run("kubectl", "-n", service.namespace, "exec", pod, "--", PYTHON, "-I", "-c", code, binary=True)
    yield "backup", f"{len(saved) / 1e6:.1f} MB"
    service.helm("uninstall", None, "--wait")
    service.k("delete", "pvc", f"data-{pod}")
    restore_into(service, saved)
    service.upgrade(**service.given)
    service.client_pod()
    after = {actor: digest(service, actor) for actor in before}
    if after != before:
        raise Failed(f"restored state differs: {before} is now {after}")
    yield "restored", "the tables of all actors are the same, row for row"
    with Load(service, RATE) as load:
        time.sleep(2)
    yield "goes on", load.said()


def migrated(service):
    """From one pod to replicas: the release becomes one of mode cluster without pods, the volume is imported."""
    before = {actor: digest(service, actor) for actor in ("by_carrier", "by_aircraft", "readings")}
    nats_with_helm(service, servers=1)
    monitors = f"http://nats-0.nats-headless.{service.namespace}.svc:8222"
    config = {"nats": {"plain_text": True, "replicas": 1, "monitor_urls": monitors, **SMALL}}
    url = f"nats://nats.{service.namespace}.svc:4222"
    service.mode, service.workload = "cluster", "deployment"
    service.given = {**LIGHT, "nats": {"url": url}, "config": config, "autoscaling": {"enabled": False}}
    begun = time.monotonic()
    service.upgrade(**service.given, replicas=0)
    imported = in_volume(service, "/opt/bitactor/bin/bitactor", "cluster", "import", "/app/flights.py")
    service.upgrade(**service.given)
    took = time.monotonic() - begun
    after = {actor: digest(service, actor) for actor in before}
    if after != before:
        raise Failed(f"migrated state differs: {before} is now {after}")
    yield "migrated", f"{imported}; the tables of all actors are the same, row for row; {took:.0f} s without service"
    with Load(service, RATE) as load:
        time.sleep(2)
    yield "goes on as replicas", load.said()


def in_volume(service, *command):
    """Run a command in a pod with the volume of the former StatefulSet; the last line that it says."""
    document = json.loads(json.dumps(MIGRATION).replace("IMAGE", service.image).replace("NAME", service.name))
    document["spec"]["containers"][0]["command"] = [*command, "--from", "/var/lib/bitactor/data"]
    document["metadata"]["labels"]["app.kubernetes.io/instance"] = service.release
    apply(document, namespace=service.namespace)
    service.k("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/import", "--timeout=180s")
    said = service.k("logs", "import").strip().splitlines()[-1]
    service.k("delete", "pod", "import")
    return said


# Selected by the release's policy, which lets it reach NATS, and never Ready, so that no Service sends to it.
MIGRATION = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "import", "labels": {"app.kubernetes.io/name": "bitactor"}},
    "spec": {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": "IMAGE",
                "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "BITACTOR_CONFIG", "value": "/etc/bitactor/config/bitactor.toml"}],
                "readinessProbe": {"exec": {"command": [PYTHON, "-c", "raise SystemExit(1)"]}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": "config", "mountPath": "/etc/bitactor/config"},
                    {"name": "tls", "mountPath": "/etc/bitactor/tls"},
                    {"name": "auth", "mountPath": "/etc/bitactor/auth"},
                    {"name": "admin", "mountPath": "/etc/bitactor/admin"},
                    {"name": "app", "mountPath": "/app"},
                    {"name": "data", "mountPath": "/var/lib/bitactor"},
                ],
            }
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": "bitactor-config"}},
            {"name": "app", "configMap": {"name": "bitactor-app"}},
            {"name": "tls", "secret": {"secretName": "NAME-tls", "defaultMode": 0o440}},
            {"name": "auth", "secret": {"secretName": "NAME-auth", "defaultMode": 0o440}},
            {"name": "admin", "secret": {"secretName": "NAME-token-admin", "defaultMode": 0o440}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-NAME-0"}},
        ],
    },
}


def digest(service, actor):
    """(rows, hash of all rows) of an actor's table."""
    said = service.ask(f"actors/{actor}/table?limit=10000&integers=text&sort=key")
    rows = sorted(json.dumps(row) for row in said["rows"])
    return len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def restore_into(service, saved):
    """A claim with the name that the StatefulSet will look for, and the backup restored into it by a pod."""
    pod = f"{service.name}-0"
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": f"data-{pod}",
            "labels": {"app.kubernetes.io/name": "bitactor", "app.kubernetes.io/instance": service.release},
        },
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    container = {
        "name": "main",
        "image": service.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [PYTHON, "-I", "-c", "import time; time.sleep(3600)"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/bitactor"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": f"data-{pod}"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
    apply(
        claim,
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restore"}, "spec": spec},
        namespace=service.namespace,
    )
    service.k("wait", "--for=condition=Ready", "pod/restore", "--timeout=120s")
    code = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open('/tmp/backup.tar', 'wb'))"
    run(
        "kubectl",
        "-n",
        service.namespace,
        "exec",
        "-i",
        "restore",
        "--",
        PYTHON,
        "-I",
        "-c",
        code,
        given=saved,
        binary=True,
    )
    service.k(
        "exec",
        "restore",
        "--",
        "/opt/bitactor/bin/bitactor",
        "log",
        "restore",
        "/tmp/backup.tar",
        "/var/lib/bitactor/data",
    )
    service.k("delete", "pod", "restore", "--grace-period=1")
