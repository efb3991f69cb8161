"""The rendered deployment: pods without rights, secrets as files, a policy of the network, probes that tell nothing."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bitactor.validation.adversarial.registry import NotRun, case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

ESCAPES: Final = "AV:L/AC:H/PR:L/UI:N/S:C/C:H/I:H/A:H"
READS: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N"


def _rendered() -> list[dict[str, Any]]:
    """The chart's manifests, of both modes. NotRun: no chart, nothing that renders or reads it."""
    chart = next(
        (p / "k8s/helm/bitactor" for p in Path(__file__).parents if (p / "k8s/helm/bitactor/Chart.yaml").exists()), None
    )
    if chart is None:
        chart = Path("k8s/helm/bitactor")
    if not (chart / "Chart.yaml").exists():
        raise NotRun("no chart at k8s/helm/bitactor: start it in a checkout")
    helm = shutil.which("helm")
    if helm is None:
        raise NotRun("no helm on this machine to render the chart with")
    try:
        import yaml  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise NotRun("PyYAML is missing to read what helm renders") from None
    import subprocess

    found: list[dict[str, Any]] = []
    for mode in (["mode=standalone"], ["mode=cluster", "nats.url=nats://nats.nats.svc:4222"]):
        # The version, because Helm without a cluster reckons with the one that it was built with.
        command = [helm, "template", "adversarial", str(chart), "--kube-version", "1.34.0", "--set", ",".join(mode)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise NotRun(f"helm template: {done.stderr.strip()[-200:]}")
        found += [one for one in yaml.safe_load_all(done.stdout) if one]
    return found


def _pods(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in manifests if "template" in one.get("spec", {})]


@case(
    cwe=250, vector=ESCAPES, surface="deployment", steps="render the chart; look at every container",
    expected=(
        "not root, read-only root, no new privileges, no capabilities, no host namespaces, no token of the "
        "cluster's API by default"
    ),
)  # fmt: skip
def pods_without_rights(_: "Site") -> str:
    """Pods that could do more than they need."""
    pods = _pods(_rendered())
    expect(pods != [], "no pods are rendered")
    count = 0
    for pod in pods:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            expect(not pod.get(name), f"{name} is set")
        expect(pod.get("automountServiceAccountToken") is False, "the token of its account is mounted")
        for container in [*pod.get("containers", []), *pod.get("initContainers", [])]:
            own = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
            expect(own.get("runAsNonRoot") is True, f"{container['name']}: may be root")
            expect(own.get("readOnlyRootFilesystem") is True, f"{container['name']}: its root can be written")
            expect(own.get("allowPrivilegeEscalation") is False, f"{container['name']}: may gain privileges")
            expect("ALL" in own.get("capabilities", {}).get("drop", []), f"{container['name']}: has capabilities")
            count += 1
    return f"{count} containers"


@case(cwe=522, vector=READS, surface="deployment", steps="render the chart; look at every variable and argument",
      expected="secrets are mounted as files: none in an environment variable or argument")  # fmt: skip
def secrets_as_files(_: "Site") -> str:
    """Secrets in variables or arguments of pods."""
    for pod in _pods(_rendered()):
        for container in pod.get("containers", []):
            for variable in container.get("env", []):
                expect("secretKeyRef" not in variable.get("valueFrom", {}), f"{variable['name']} holds a secret")
            words = " ".join(map(str, [*container.get("command", []), *container.get("args", [])]))
            expect("token " not in words and "password" not in words, f"arguments: {words[:200]}")
    return "no secret in a variable or an argument"
