"""kubectl, as far as the campaign asks a cluster with it: the one of KUBECONFIG. Any thread."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any, Final

from bitactor.validation.campaign import CannotRun, DefectFoundError

_TIMEOUT_S: Final = 120.0
_READY_S: Final = 120.0
_WAITS_S: Final = (1, 2, 4)
# What kubectl says when the API server did not get to it at all.
_BUSY: Final = (
    *("TLS handshake timeout", "connection refused", "net/http: request canceled while waiting", "i/o timeout"),
    *("connection reset by peer", "unexpected EOF", "etcdserver:", "ServiceUnavailable"),
)


class KubectlError(Exception):
    """What kubectl said, and its command."""


def kubectl(*words: str, given: Any = None, timeout_s: float = _TIMEOUT_S) -> str:
    """Standard output. given: an object, handed in as JSON. KubectlError; CannotRun without kubectl."""
    program = shutil.which("kubectl")
    if program is None:
        raise CannotRun("kubectl is not on the PATH")
    text = None if given is None else json.dumps(given)
    waits = list(_WAITS_S)
    while True:
        try:
            done = subprocess.run(
                [program, *words], input=text, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {' '.join(words[:6])}: no answer in {timeout_s:g} s") from None
        if not done.returncode:
            return done.stdout
        if not waits or not any(word in done.stderr for word in _BUSY):
            raise KubectlError(f"kubectl {' '.join(words[:6])}: {(done.stderr or done.stdout).strip()[-1500:]}")
        time.sleep(waits.pop(0))


def get(namespace: str, kind: str, name: str = "", selector: str = "") -> Any:
    """An object, or the list of those selected. KubectlError."""
    words = ["-n", namespace, "get", kind, *([name] if name else []), "-o", "json"]
    found = json.loads(kubectl(*words, *(["-l", selector] if selector else [])))
    return found if name else found["items"]


def apply(namespace: str, *objects: Any) -> None:
    """Create or change these."""
    kubectl("-n", namespace, "apply", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": list(objects)})


def wait_until_ready(namespace: str, pod: str) -> None:
    """Wait for a pod of one's own. KubectlError: it is not Ready within _READY_S."""
    words = ["wait", "--for=condition=Ready", f"pod/{pod}", f"--timeout={_READY_S:g}s"]
    kubectl("-n", namespace, *words, timeout_s=_READY_S + 10)


def wait_for(what: str, seconds: float, holds: Callable[[], Any], every_s: float = 0.25) -> Any:
    """The first value of `holds` that is true; a KubectlError is none. DefectFoundError when there is none in time."""
    until, why = time.monotonic() + seconds, ""
    while True:
        try:
            if got := holds():
                return got
        except KubectlError as error:
            why = f": {error}"
        if time.monotonic() > until:
            raise DefectFoundError(f"{what}: not within {seconds:g} s{why}")
        time.sleep(every_s)
