"""The pods that a campaign makes beside a release, and removes: one that sends, and one that can kill from the node."""

import contextlib
import json
import subprocess
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bitactor.validation.campaign import DefectFoundError
from bitactor.validation.kubernetes import sender
from bitactor.validation.kubernetes.kubectl import KubectlError, apply, kubectl, wait_for, wait_until_ready
from bitactor.validation.kubernetes.release import Release
from bitactor.validation.tether import tethered

PYTHON: Final = "/opt/bitactor/bin/python"
_SLEEP: Final = [PYTHON, "-I", "-c", "import time; time.sleep(1000000)"]
_POLICIES_S: Final = 2.0  # until they know a new pod
_ENDS_S: Final = 600.0
_CHARTS_OWN: Final = ("config", "tls", "auth", "admin-token", "client-ca", "nats", "data", "cache", "temporary")
_REACHES: Final = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
    print("yes")
except OSError:
    print("no")
"""
# The uid of a pod is in the name of its processes' group of resources, with - or with _.
KILLER: Final = """
import os, sys
uids = sys.argv[1], sys.argv[1].replace("-", "_")
hit = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        group, command = open(f"/proc/{pid}/cgroup").read(), open(f"/proc/{pid}/cmdline").read()
    except OSError:
        continue
    if any(uid in group for uid in uids) and "bitactor" in command and "serve" in command:
        os.kill(int(pid), 9)
        hit += 1
print(hit)
"""


class Client:
    """A pod of the release's image that is let in as a client: sender.py runs in it. Use it in a `with` statement."""

    def __init__(self, release: Release, label: str, seed: int) -> None:
        self.release, self.label, self.seed = release, label, seed
        self.name = f"bitactor-chaos-client-{seed}"
        self.began_at = 0.0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._remove()
        try:
            apply(self.release.namespace, *self._objects())
            wait_until_ready(self.release.namespace, self.name)
        except BaseException:
            self._remove()
            raise
        time.sleep(_POLICIES_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._remove()

    def begin(self, rate: int) -> None:
        """Let it send, at so many signals a second. DefectFoundError: it does not begin."""
        command = ["kubectl", *self._exec(*self._words("send"), "--rate", str(rate))]
        self._process = subprocess.Popen(tethered(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith("{"):
            raise DefectFoundError(f"the client does not begin: {_last_words(self._process.communicate()[1])}")
        self.began_at = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began_at

    def end(self) -> dict[str, Any]:
        """Let it stop; what it sent and was acknowledged. DefectFoundError: it failed, or waits for ever."""
        kubectl(*self._exec(PYTHON, "-I", "-c", "open('/tmp/stop', 'w')"))
        assert self._process is not None
        try:
            out, said = self._process.communicate(timeout=_ENDS_S)
        except subprocess.TimeoutExpired:
            raise DefectFoundError(f"not everything was acknowledged within {_ENDS_S:g} s") from None
        if not out.strip():
            raise DefectFoundError(f"the client failed: {_last_words(said)}")
        ended: dict[str, Any] = json.loads(out.splitlines()[-1])
        return ended

    def judge(self, sent: int) -> dict[str, Any]:
        """What sender.judge finds."""
        said = kubectl(*self._exec(*self._words("judge"), "--sent", str(sent)), timeout_s=_ENDS_S)
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def reaches(self, host: str, port: int = 9090) -> bool:
        """Whether a new connection from it is taken there. KubectlError: it could not be tried."""
        return kubectl(*self._exec(PYTHON, "-I", "-c", _REACHES, host, str(port))).strip() == "yes"

    def _words(self, verb: str) -> list[str]:
        where = ["--address", self.release.address, "--admin", self.release.admin]
        words = [PYTHON, "-I", "/code/sender.py", verb, *where]
        return [*words, "--label", self.label, "--seed", str(self.seed), "--app", self.release.app()]

    def _exec(self, *words: str) -> list[str]:
        return ["-n", self.release.namespace, "exec", self.name, "--", *words]

    def _remove(self) -> None:
        with contextlib.suppress(KubectlError):
            words = ["delete", "pod,configmap", self.name, "--ignore-not-found", "--grace-period=1"]
            kubectl("-n", self.release.namespace, *words)

    def _objects(self) -> list[dict[str, Any]]:
        release, code = self.release, Path(sender.__file__).read_text(encoding="utf-8")
        sources = [
            {"secret": {"name": secret, "items": [{"key": key, "path": path}]}}
            for path, (secret, key) in release.secrets.items()
        ]
        # What the app may need: its files, and whatever else the release was given beside what the chart mounts.
        mounts = [one for one in release.container["volumeMounts"] if not one["name"].startswith(_CHARTS_OWN)]
        env = [one for one in release.container.get("env", []) if not one["name"].startswith("BITACTOR_")]
        pod = release.template["spec"]
        container = {
            "name": "main",
            "image": release.container["image"],
            "imagePullPolicy": release.container.get("imagePullPolicy", "IfNotPresent"),
            "command": _SLEEP,
            "env": [*env, {"name": "BITACTOR_CACHE_DIR", "value": "/tmp/handlers"}],  # noqa: S108  (the pod's own)
            "securityContext": release.container["securityContext"],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
            "volumeMounts": [
                {"name": "code", "mountPath": "/code"},
                {"name": "secrets", "mountPath": "/secrets"},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                *mounts,
            ],
        }
        spec = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": pod["securityContext"],
            **{name: pod[name] for name in ("imagePullSecrets", "nodeSelector", "tolerations") if name in pod},
            "containers": [container],
            "volumes": [
                {"name": "code", "configMap": {"name": self.name}},
                {"name": "secrets", "projected": {"sources": sources, "defaultMode": 0o440}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "512Mi"}},
                *(release.volumes[one["name"]] for one in mounts),
            ],
        }
        labels = {f"{release.name}-client": "true", f"{release.name}-admin": "true"}
        return [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": {"sender.py": code}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "labels": labels}, "spec": spec},
        ]


def _last_words(said: str) -> str:
    """The last line of a program's errors; kubectl's word of its status comes behind it."""
    lines = [line for line in said.splitlines() if line and not line.startswith("command terminated")]
    return lines[-1][:800] if lines else "it said nothing"


class Killer:
    """Privileged pods on nodes, in a namespace of their own: a container's first process is immune from inside it."""

    def __init__(self, image: str, seed: int) -> None:
        self.image = image
        self.namespace = f"bitactor-chaos-host-{seed}"
        self._there = False

    def kill(self, pod: dict[str, Any]) -> int:
        """Kill -9 the service's process in that pod; how many processes were hit. KubectlError: it may not be made."""
        node = pod["spec"]["nodeName"]
        name = f"killer-{zlib.crc32(node.encode()):08x}"
        self._make(name, node)
        said = kubectl("-n", self.namespace, "exec", name, "--", PYTHON, "-I", "-c", KILLER, pod["metadata"]["uid"])
        return int(said)

    def _make(self, name: str, node: str) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "privileged"}
        self._there = True
        apply(
            "default", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        )
        container = {
            "name": "main",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": _SLEEP,
            "securityContext": {"privileged": True, "runAsUser": 0},
        }
        spec = {
            "hostPID": True,
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        wait_for("the account of the killer's namespace", 60, self._has_account, 0.5)
        apply(self.namespace, made)
        wait_until_ready(self.namespace, name)

    def remove(self) -> None:
        """Take its namespace away."""
        if self._there:
            with contextlib.suppress(KubectlError):
                kubectl("delete", "namespace", self.namespace, "--ignore-not-found")

    def _has_account(self) -> bool:
        kubectl("-n", self.namespace, "get", "serviceaccount", "default")
        return True
