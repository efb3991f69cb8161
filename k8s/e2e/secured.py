"""Step 5b: replicas over a NATS that asks for TLS 1.3 and a password, and grants what docs/cluster-nats.md says.

A release and a NATS of one server in a namespace of their own, which is removed at the end.
"""

import base64
import json
import re
import secrets
import tempfile
import time
from pathlib import Path

import steps
from kube import PYTHON, ROOT, Failed, Load, Service, apply, kubectl

USER = "bitactor"


def over_tls(image):
    """The step."""
    service = Service(image, namespace="bitactor-secured", mode="cluster")
    service.namespace_there()
    password = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        keys(service, Path(folder), password)
    steps.nats_with_helm(service, servers=1, more=server(password))
    monitors = f"http://nats-0.nats-headless.{service.namespace}.svc:8222"
    nats = {
        "url": f"tls://nats.{service.namespace}.svc:4222",
        "ca": {"existingSecret": "nats-ca"},
        "password": {"user": USER, "existingSecret": "nats-password"},
    }
    config = {"nats": {"replicas": 1, "monitor_urls": monitors, **steps.SMALL}}
    service.given = {**steps.LIGHT, "nats": nats, "config": config, "autoscaling": {"enabled": False}, "replicas": 2}
    service.upgrade(**service.given)
    service.client_pod()
    yield "asked for", greeted(service)
    with Load(service, steps.RATE) as load:
        time.sleep(5)
    yield "exact", f"{load.said()}; durability {load.figures['durability']}"
    yield "a wrong password", refused(service)
    kubectl("delete", "namespace", service.namespace, "--wait=false")


def keys(service, folder, password):
    """Secrets: the server's certificate, its CA, the right password and a wrong one."""
    from bitactor.ingest import certs

    certs.make_ca(folder)
    certs.make_server(folder, ["nats", f"nats.{service.namespace}.svc"])
    files = {
        "nats-tls": {"tls.crt": folder / "server.pem", "tls.key": folder / "server.key"},
        "nats-ca": {"ca.crt": folder / "ca.pem"},
    }
    texts = {name: {key: file.read_bytes() for key, file in data.items()} for name, data in files.items()}
    texts |= {"nats-password": {"password": password.encode()}, "nats-wrong": {"password": b"wrong"}}
    apply(
        *(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name},
                "data": {key: base64.b64encode(text).decode() for key, text in data.items()},
            }
            for name, data in texts.items()
        ),
        namespace=service.namespace,
    )


def server(password):
    """Values of NATS' chart: TLS 1.3, and one user with the permissions that the page has."""
    page = (ROOT / "docs/cluster-nats.md").read_text()
    (block,) = re.findall(r"<!-- permissions -->\n```json\n(.*?)```", page, re.DOTALL)
    user = {"user": USER, "password": password, "permissions": json.loads(block.replace("market", "flights"))}
    return {
        "config": {
            "nats": {"tls": {"enabled": True, "secretName": "nats-tls", "merge": {"min_version": "1.3"}}},
            "merge": {"accounts": {"APP": {"jetstream": "enabled", "users": [user]}}},
        }
    }


def greeted(service):
    """What the server asks of whoever connects, seen from a pod of the service."""
    code = (
        "import json, socket, sys\n"
        "line = socket.create_connection((sys.argv[1], 4222), 5).makefile().readline()\n"
        "said = json.loads(line.removeprefix('INFO '))\n"
        "print(said.get('tls_required'), said.get('auth_required'))"
    )
    pod = service.pods(ready=True)[0]["metadata"]["name"]
    host = f"nats.{service.namespace}.svc"
    said = service.k("exec", pod, "-c", "bitactor", "--", PYTHON, "-I", "-c", code, host).strip()
    if said != "True True":
        raise Failed(f"NATS asks for TLS and for who it is: {said}")
    return "TLS and a user; the service has both, with the permissions of docs/cluster-nats.md"


def refused(service):
    """With a wrong password no pod becomes ready, and says why; those that run go on."""
    running = {pod["metadata"]["uid"] for pod in service.pods(ready=True)}
    wrong = {**service.given["nats"], "password": {"user": USER, "existingSecret": "nats-wrong"}}
    service.timeout = "40s"
    try:
        service.upgrade(**{**service.given, "nats": wrong})
    except Failed as error:
        if "uthorization" not in str(error):
            raise Failed(f"the pod does not say that it was refused: {error}") from error
    else:
        raise Failed("pods are ready with a wrong password")
    if not running <= {pod["metadata"]["uid"] for pod in service.pods(ready=True)}:
        raise Failed("a pod with the right password was taken away")
    return "the new pod is not ready and says so; those that run go on"
