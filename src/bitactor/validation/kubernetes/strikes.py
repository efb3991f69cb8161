"""What is done to a pod of a release. Each strike returns whether it hit, and what of that was seen."""

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from bitactor.validation.campaign import DefectFoundError
from bitactor.validation.kubernetes.kubectl import KubectlError, apply, get, kubectl, wait_for
from bitactor.validation.kubernetes.pods import Client, Killer
from bitactor.validation.kubernetes.release import Release

Seen = tuple[bool, str]

CUT: Final = "bitactor-chaos-cut"  # label of a pod that is cut off, and name of the policy that does it
CUT_S: Final = 10.0
_GONE_S: Final = 240.0
_REFUSED_S: Final = 180.0  # a budget may refuse for so long
_NOTICED_S: Final = 30.0
_RESTORED_S: Final = 60.0


class Struck:
    """A release, who sends to it, and what strikes need beside them."""

    def __init__(self, release: Release, client: Client, seed: int) -> None:
        self.release, self.client = release, client
        self.killer = Killer(release.container["image"], seed)

    def deleted(self, pod: dict[str, Any]) -> Seen:
        """A pod is deleted: it leaves the Service, drains, and stops in order."""
        kubectl("-n", self.release.namespace, "delete", "pod", pod["metadata"]["name"], "--wait=false")
        return self._gone(pod)

    def killed(self, pod: dict[str, Any]) -> Seen:
        """The process in a pod is killed with -9."""
        name, before = pod["metadata"]["name"], _restarts(pod)
        hit = self.killer.kill(pod)
        if not hit:
            return False, f"no process of {name} was found on its node"
        wait_for(
            f"a restart of {name}", _GONE_S, lambda: _restarts(get(self.release.namespace, "pod", name)) > before, 0.5
        )
        return True, f"{name}: {hit} process killed, container started again"

    def evicted(self, pod: dict[str, Any]) -> Seen:
        """A pod is evicted, as a drain of its node would; the disruption budget may refuse for a while."""
        name, namespace = pod["metadata"]["name"], self.release.namespace
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
        path, until, refusals = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", time.monotonic() + _REFUSED_S, 0
        while True:
            try:
                kubectl("create", "--raw", path, "-f", "-", given=eviction)
            except KubectlError as error:
                if "disruption budget" not in str(error) or time.monotonic() > until:
                    raise
                refusals += 1
                time.sleep(1)
            else:
                hit, seen = self._gone(pod)
                return hit, f"{seen}; refused {refusals} times before"

    def cut_off(self, pod: dict[str, Any]) -> Seen:
        """A pod is cut off by a NetworkPolicy for CUT_S: nothing may come in or go out."""
        name, host, namespace = pod["metadata"]["name"], pod["status"]["podIP"], self.release.namespace
        if not self.client.reaches(host):
            return False, f"{name} could not be reached before"
        with self._policies(pod):
            kubectl("-n", namespace, "label", "pod", name, f"{CUT}=true", "--overwrite")
            try:
                with contextlib.suppress(DefectFoundError):
                    wait_for("", _NOTICED_S, lambda: not self.client.reaches(host), 0.5)
                begun = time.monotonic()
                restarts = _restarts(get(namespace, "pod", name))
                time.sleep(CUT_S)
                reached, seconds = self.client.reaches(host), time.monotonic() - begun
            finally:
                _restored("label", "-n", namespace, "pod", name, f"{CUT}-")
        if reached:
            return False, f"{name} could be reached all the time: are NetworkPolicies enforced here?"
        if restarts != _restarts(pod):
            return False, f"{name} started again before it was seen to be cut off"
        return True, f"{name}: new connections were refused for {seconds:.0f} s"

    @contextlib.contextmanager
    def _policies(self, pod: dict[str, Any]) -> Iterator[None]:
        """Policies that let this pod do something leave out who is cut off; one for those allows nothing."""
        namespace, labels = self.release.namespace, pod["metadata"]["labels"]
        ours = {"key": CUT, "operator": "DoesNotExist"}
        changed = {}
        for policy in get(namespace, "networkpolicies"):
            selector = policy["spec"].get("podSelector", {})
            if policy["metadata"]["name"] != CUT and selector.get("matchLabels", {}).items() <= labels.items():
                before = [one for one in selector.get("matchExpressions", []) if one != ours]
                changed[policy["metadata"]["name"]] = before
        deny = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": CUT},
            "spec": {"podSelector": {"matchLabels": {CUT: "true"}}, "policyTypes": ["Ingress", "Egress"]},
        }
        try:
            apply(namespace, deny)
            for name, before in changed.items():
                kubectl(*self._patch(name, [*before, ours]))
            yield
        finally:
            for name, before in changed.items():
                _restored(*self._patch(name, before or None))
            _restored("delete", "-n", namespace, "networkpolicy", CUT, "--ignore-not-found")

    def _patch(self, policy: str, expressions: list[Any] | None) -> list[str]:
        change = json.dumps({"spec": {"podSelector": {"matchExpressions": expressions}}})
        return ["patch", "-n", self.release.namespace, "networkpolicy", policy, "--type=merge", "-p", change]

    def _gone(self, pod: dict[str, Any]) -> Seen:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]

        def gone() -> bool:
            there = get(self.release.namespace, "pods", selector=self.release.selector)
            return uid not in {one["metadata"]["uid"] for one in there}

        wait_for(f"the end of {name}", _GONE_S, gone, 0.5)
        return True, f"{name} is gone"


def _restored(*words: str) -> None:
    """Undo something on the cluster, tried for a while. DefectFoundError says which command is left to be run."""

    def done() -> bool:
        try:
            kubectl(*words)
        except KubectlError as error:
            if "not found" not in str(error):  # the pod may be gone meanwhile
                raise
        return True

    try:
        wait_for("undoing a strike", _RESTORED_S, done, 2)
    except DefectFoundError as error:
        raise DefectFoundError(f"{error}; left to be done: kubectl {shlex.join(words)}") from None


def _restarts(pod: dict[str, Any]) -> int:
    return sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))


KINDS: Final[dict[str, Callable[[Struck, dict[str, Any]], Seen]]] = {
    "pod deleted": Struck.deleted,
    "process killed": Struck.killed,
    "pod evicted": Struck.evicted,
    "pod cut off": Struck.cut_off,
}
