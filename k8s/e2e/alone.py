"""Step 6: the service of one pod with a volume; validated, disturbed, saved, removed, restored."""

import hashlib
import json
import time

import faults
from kube import PYTHON, Failed, Load, Service, apply, run
from steps import LIGHT, RATE, each_exact, flights_sent, started, tested, validated

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
    yield from each_exact(service, STANDALONE_FAULTS)
    yield "pod start", started(service)
    yield from saved_and_restored(service)


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
        "metadata": {"name": f"data-{pod}"},
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
