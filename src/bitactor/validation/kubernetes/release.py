"""The release of the chart that is struck: what a campaign finds of it in its namespace."""

import tomllib
from typing import Any, Final

from bitactor.validation.campaign import CannotRun
from bitactor.validation.kubernetes.kubectl import KubectlError, get, wait_for

SETTLED_S: Final = 300.0
_CHART: Final = "app.kubernetes.io/name=bitactor"


class Release:
    """Workload, Services and Secrets of one release. token_secret: with the token of a client."""

    def __init__(self, namespace: str, workload: dict[str, Any], token_secret: str | None) -> None:
        self.namespace = namespace
        self.name = workload["metadata"]["name"]
        self.kind = workload["kind"].lower()
        spec = workload["spec"]
        self.selector = ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items())
        self.template = spec["template"]
        self.container = next(one for one in self.template["spec"]["containers"] if one["name"] == "bitactor")
        self.volumes = {one["name"]: one for one in self.template["spec"]["volumes"]}
        self._ports = {
            service: get(namespace, "service", service)["spec"]["ports"][0]["port"]
            for service in (self.name, f"{self.name}-admin")
        }
        self.secrets = {
            "ca.crt": (self.volumes["tls"]["secret"]["secretName"], "ca.crt"),
            "token": (token_secret or f"{self.name}-token-client", "token"),
            "admin": (self.volumes["admin-token"]["secret"]["secretName"], "token"),
        }

    @property
    def address(self) -> str:
        """Where signals go."""
        return f"{self.name}.{self.namespace}.svc:{self._ports[self.name]}"

    @property
    def admin(self) -> str:
        """Where HTTP is."""
        return f"http://{self.name}-admin.{self.namespace}.svc:{self._ports[f'{self.name}-admin']}"

    def app(self) -> str:
        """The file of the app, inside a pod."""
        settings = get(self.namespace, "configmap", self.volumes["config"]["configMap"]["name"])
        return str(tomllib.loads(settings["data"]["bitactor.toml"])["app"])

    def settled(self) -> list[dict[str, Any]]:
        """Wait until all pods that are wanted are ready and none is ending; these pods, by name. DefectFoundError."""

        def holds() -> list[dict[str, Any]]:
            every = get(self.namespace, "pods", selector=self.selector)
            wanted = get(self.namespace, self.kind, self.name)["spec"]["replicas"]
            fine = [pod for pod in every if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
            return sorted(fine, key=_name) if len(fine) == len(every) == wanted else []

        found: list[dict[str, Any]] = wait_for(f"all pods of {self.name} ready", SETTLED_S, holds, 0.5)
        return found


def _name(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod is Ready."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def find(namespace: str, release: str | None, token_secret: str | None) -> Release:
    """The release of that name, or the only one there. CannotRun says what is missing."""
    selector = _CHART + (f",app.kubernetes.io/instance={release}" if release else "")
    try:
        found = get(namespace, "deployments,statefulsets", selector=selector)
    except KubectlError as error:
        raise CannotRun(f"the cluster of KUBECONFIG: {error}") from None
    if not found:
        raise CannotRun(f"no release{f' {release}' if release else ''} of the chart in the namespace {namespace}")
    if len(found) > 1:
        names = ", ".join(one["metadata"]["labels"]["app.kubernetes.io/instance"] for one in found)
        raise CannotRun(f"several releases in {namespace}, so --release has to name one: {names}")
    try:
        there = Release(namespace, found[0], token_secret)
    except KubectlError as error:
        raise CannotRun(f"the release has no Services as the chart makes them: {error}") from None
    for holder, key in there.secrets.values():
        try:
            keys = sorted(get(namespace, "secret", holder).get("data", {}))
        except KubectlError as error:
            raise CannotRun(f"the client's pod needs {key} of the Secret {holder}: {error}") from None
        if key not in keys:
            raise CannotRun(
                f"the client's pod needs {key} of the Secret {holder}, which has {', '.join(keys) or 'nothing'}"
            )
    return there
