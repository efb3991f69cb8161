"""kubectl, helm and what the end-to-end check asks of a cluster with them. One thread, beside pods that send."""

import json
import os
import subprocess
import time
from pathlib import Path

import flights_app
import yaml
from flights_app import ROOT

from bitactor.validation.kubernetes.release import is_ready

HERE = Path(__file__).parent
CHART = ROOT / "k8s/helm/bitactor"
PYTHON = "/opt/bitactor/bin/python"


# What kubectl says when the API server did not get to it at all.
BUSY = ("TLS handshake timeout", "connection refused", "net/http: request canceled while waiting for connection")


class Bad(str):
    """What was seen, and should not be; the step goes on and has failed."""

    __slots__ = ()


class Failed(Exception):
    """A step cannot go on; the words say why."""


def run(*command, given=None, check=True, timeout=600, cwd=None, env=None, binary=False):
    """Standard output of a command, as text (or bytes). Failed with what it said."""
    command = [str(part) for part in command]
    whole = {**os.environ, **(env or {})}
    for wait_s in (1, 2, 4, 8, None):
        done = subprocess.run(
            command, input=given, capture_output=True, text=not binary, timeout=timeout, cwd=cwd, env=whole, check=False
        )
        said = (done.stderr if isinstance(done.stderr, str) else done.stderr.decode()).strip()
        if not done.returncode or wait_s is None or not any(word in said for word in BUSY):
            break
        time.sleep(wait_s)  # the API server of a small machine is late at times
    if check and done.returncode:
        out = done.stdout if isinstance(done.stdout, str) else ""
        raise Failed(f"{' '.join(command[:6])}: status {done.returncode}: {(out[-1500:] + said[-2500:]).strip()}")
    return done.stdout


def status(*command, timeout=120):
    """(exit status, everything it said)."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def kubectl(*arguments, **more):
    """Standard output of kubectl."""
    return run("kubectl", *arguments, **more)


def get(kind, name=None, namespace=None, selector=None):
    """An object, or the list of those selected; None when it is not there."""
    command = ["kubectl", "get", kind, *([name] if name else []), "-o", "json"]
    command += ["-n", namespace] if namespace else []
    command += ["-l", selector] if selector else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        if "NotFound" in done.stderr or "not found" in done.stderr:
            return None
        raise Failed(done.stderr.strip())
    found = json.loads(done.stdout)
    return found if name else found["items"]


def apply(*documents, namespace=None):
    """Create or change these."""
    where = ["-n", namespace] if namespace else []
    return kubectl("apply", *where, "-f", "-", given=yaml.safe_dump_all(documents))


def wait_for(what, seconds, holds, every=0.25):
    """The first value of `holds` that is not false; Failed when there is none in time. The time it took is not kept."""
    end = time.monotonic() + seconds
    while True:
        got = holds()
        if got:
            return got
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(every)


class Service:
    """A release of the chart, and the pod beside it that sends."""

    def __init__(self, image, namespace="bitactor", release="bitactor", mode="standalone"):
        self.image, self.namespace, self.release, self.mode = image, namespace, release, mode
        self.name = f"{release}-bitactor"
        self.selector = f"app.kubernetes.io/name=bitactor,app.kubernetes.io/instance={release}"
        self.workload = "statefulset" if mode == "standalone" else "deployment"
        self.has_volume = mode == "standalone"  # also after it has become replicas
        self.by_terraform = False
        self.chart, self.app = CHART, flights_app.text()  # others, where a fault is planted (planted.py)
        self.timeout = "300s"
        self.given = {}  # values beside image and app

    def k(self, *arguments, **more):
        """Kubectl in its namespace."""
        return kubectl("-n", self.namespace, *arguments, **more)

    def namespace_there(self):
        """Make the namespace, with the restricted standard."""
        labels = {f"pod-security.kubernetes.io/{one}": "restricted" for one in ("enforce", "warn")}
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}})

    def values(self, **more):
        """Values of the release: the image, the app, and what is given."""
        repository, _, tag = self.image.rpartition(":")
        return {
            "mode": self.mode,
            "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
            "app": {"files": {"flights.py": self.app}},
            **more,
        }

    def helm(self, verb, values=None, *arguments):
        """Run helm VERB with values."""
        chart = [self.chart] if verb in {"install", "upgrade"} else []
        given = yaml.safe_dump(values) if values is not None else None
        command = ["helm", verb, self.release, *chart, "-n", self.namespace, *arguments, "--timeout", self.timeout]
        return run(*command, *(["-f", "-"] if given else []), given=given)

    def upgrade(self, **more):
        """Install or upgrade, and wait until it is rolled out. Failed with what pods say that are not ready."""
        try:
            self.helm("upgrade", self.values(**more), "--install", "--wait")
        except Failed as error:
            raise Failed(f"{error}{self.last_words()}") from error
        wait_for("former pods to end", 120, self.no_pod_ends)

    def last_words(self):
        """The last line of each pod that is not ready."""
        words = ""
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if not is_ready(pod):
                for former in ((), ("--previous",)):
                    said = status("kubectl", "-n", self.namespace, "logs", name, "--tail=1", *former)[1]
                    words += f"; {name}: {said[-700:]}"
        return words

    def no_pod_ends(self):
        """Whether none of its pods is on its way out."""
        found = get("pods", namespace=self.namespace, selector=self.selector)
        return not any("deletionTimestamp" in pod["metadata"] for pod in found)

    def rolled_out(self, seconds=300):
        """Wait for the roll-out."""
        self.k("rollout", "status", f"{self.workload}/{self.name}", f"--timeout={seconds}s")

    def pods(self, ready=False):
        """Its pods that are not ending, the oldest first."""
        found = get("pods", namespace=self.namespace, selector=self.selector)
        found = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        if ready:
            found = [pod for pod in found if is_ready(pod)]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def client_pod(self, name="client", labelled=True):
        """A pod of the image that sleeps, with the Secrets of a client; the label lets it in."""
        labels = {"bitactor-e2e": "true"}
        if labelled:
            labels |= {f"{self.name}-client": "true", f"{self.name}-admin": "true"}
        self.k("delete", "pod", name, "--ignore-not-found", "--grace-period=1")
        code = {
            "load.py": (HERE / "load.py").read_text(),
            "probe.py": (HERE.parent / "validation/probe.py").read_text(),
        }
        meta = {"name": "e2e-code", "labels": {"bitactor-e2e": "true"}}
        secrets = {
            f"{self.name}-tls": ("ca.crt", "ca.crt"),
            f"{self.name}-token-client": ("token", "token"),
            f"{self.name}-token-admin": ("token", "admin"),
        }
        sources = [
            {"secret": {"name": secret, "items": [{"key": key, "path": path}]}}
            for secret, (key, path) in secrets.items()
        ]
        container = {
            "name": "main",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": [PYTHON, "-I", "-c", "import time; time.sleep(100000)"],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
            "volumeMounts": [
                {"name": "code", "mountPath": "/code"},
                {"name": "secrets", "mountPath": "/secrets"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
        spec = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "code", "configMap": {"name": "e2e-code"}},
                {"name": "secrets", "projected": {"sources": sources, "defaultMode": 0o440}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "512Mi"}},
            ],
        }
        apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": code},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec},
            namespace=self.namespace,
        )
        self.k("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        time.sleep(1.5)  # until policies know the pod

    @property
    def address(self):
        """Where signals go."""
        return f"{self.name}.{self.namespace}.svc:9090"

    @property
    def admin(self):
        """Where HTTP is."""
        return f"http://{self.name}-admin.{self.namespace}.svc:8080"

    def inside(self, code, *arguments, pod="client", check=True):
        """What Python says inside a pod."""
        return self.k("exec", pod, "--", PYTHON, "-I", "-c", code, *arguments, check=check)

    def probe(self, *arguments, pod="client"):
        """(status, figures) of validation/probe.py in the client's pod."""
        command = ["kubectl", "-n", self.namespace, "exec", pod, "--", PYTHON, "-I", "/code/probe.py", *arguments]
        done, said = status(*command, timeout=300)
        lines = [line for line in said.splitlines() if line.startswith("{")]
        return done, json.loads(lines[-1]) if lines else {"error": said[-500:]}

    def ask(self, path, body=None):
        """The admin API's answer, asked from the client's pod."""
        code = (
            "import json, sys, urllib.request as r\n"
            "token = open('/secrets/admin').read().strip()\n"
            "h = {'authorization': 'Bearer ' + token, 'content-type': 'application/json'}\n"
            "data = sys.argv[2].encode() or None\n"
            "print(r.urlopen(r.Request(sys.argv[1], data, h), timeout=60).read().decode())"
        )
        url = f"{self.admin}/api/v1/{path}"
        given = json.dumps(body) if body is not None else ""
        return wait_for(f"an answer to {path}", 60, lambda: self.answered(code, url, given), every=1)

    def answered(self, code, *arguments):
        """What the code prints, as JSON; None when a name could not be resolved or nobody answered yet."""
        try:
            return json.loads(self.inside(code, *arguments))
        except Failed as error:
            if "URLError" in str(error) or "HTTP Error 503" in str(error):
                return None
            raise

    def metrics(self):
        """Metrics without labels of the pod that answers (one of them, where there are several)."""
        code = (
            "import sys, urllib.request as r\n"
            "token = open('/secrets/admin').read().strip()\n"
            "q = r.Request(sys.argv[1] + '/metrics', headers={'authorization': 'Bearer ' + token})\n"
            "print(r.urlopen(q, timeout=60).read().decode())"
        )
        lines = [line.split() for line in self.inside(code, self.admin).splitlines() if not line.startswith("#")]
        return {line[0]: float(line[1]) for line in lines if len(line) == 2 and "{" not in line[0]}

    def counted(self, keys):
        """The count of readings of each key."""
        code = (
            "import json, sys, urllib.request as r\n"
            "token = open('/secrets/admin').read().strip()\n"
            "def one(k):\n"
            "    u = sys.argv[1] + '/api/v1/actors/readings/state/' + k + '?text=true'\n"
            "    q = r.Request(u, headers={'authorization': 'Bearer ' + token})\n"
            "    return json.load(r.urlopen(q, timeout=60))['state']['count']\n"
            "print(json.dumps([one(k) for k in sys.argv[2:]]))"
        )
        return wait_for("the counts", 60, lambda: self.answered(code, self.admin, *keys), every=1)


class Load:
    """Steady load from the client's pod while something is done to the service: `with Load(service, rate) as load`.

    After it: sent, acked, each key's count, the longest time without an acknowledgement. Failed when it is not exact.
    """

    def __init__(self, service, rate=5000, pod="client", settle_s=3):
        self.service, self.rate, self.pod, self.settle_s = service, rate, pod, settle_s
        self.figures = {}

    def __enter__(self):
        command = ["kubectl", "-n", self.service.namespace, "exec", self.pod, "--", PYTHON, "-I", "/code/load.py"]
        command += ["steady", self.service.address, str(self.rate)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if not self.process.stdout.readline():
            raise Failed(f"the client does not begin: {self.process.stderr.read()[-1000:]}")
        time.sleep(self.settle_s)
        self.begun = time.time()
        return self

    def __exit__(self, kind, error, trace):
        time.sleep(0 if kind else self.settle_s)
        self.service.inside("open('/tmp/stop', 'w')", pod=self.pod, check=False)
        try:
            out, said = self.process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed("the client does not end") from error
        if kind:
            return
        lines = [line for line in out.splitlines() if line.startswith("{")]
        if not lines:
            raise Failed(f"the client failed: {said[-1500:]}")
        got = json.loads(lines[-1])
        during = [length for at, length in got.pop("gaps") if at + length / 1000 >= self.begun]
        keys = got.pop("keys")
        counts = self.service.counted(keys)
        got["counted"] = sum(counts)
        got["gap_ms_max"] = max(during, default=0)
        self.figures = got
        if got["acked"] != got["sent"] or counts != [got["each"]] * len(keys):
            raise Failed(f"not exact: sent {got['sent']}, acknowledged {got['acked']}, counted {counts}")

    def said(self):
        """For the table."""
        one = self.figures
        return f"{one['sent']:,} sent, each counted once; longest gap in acks {one['gap_ms_max']} ms"
