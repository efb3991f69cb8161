"""What `helm test` runs in a pod: roundtrip.py ADDRESS ADMIN-URL TEST-AS-JSON; status 1 when something differs.

Sends test.signals signals of test.kind under a key of its own over TLS, reads the key's state back from test.actor
over HTTP and compares test.counter with what it sent; then erases the key and forgets the producer. Without test.kind
it only says hello.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import bitactor as ba

SECRETS = Path("/secrets")


def ask(url: str, body: object = None) -> object:
    """The admin interface's answer."""
    request = urllib.request.Request(  # noqa: S310 (the URL is the chart's)
        url,
        None if body is None else json.dumps(body).encode(),
        {"authorization": f"Bearer {(SECRETS / 'admin').read_text().strip()}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def main(address: str, admin: str, test: dict) -> str:
    """What was seen; SystemExit when it is not what was sent."""
    name = f"helm-test-{os.urandom(6).hex()}"
    with ba.Client(
        address,
        producer=name,
        token_file=SECRETS / "token",
        ca_file=SECRETS / "ca.crt",
        connect_s=60,
    ) as client:
        if not test.get("kind"):
            return f"connected to {address}: TLS and token are good; test.kind is not set, so nothing was sent"
        for _ in range(test["signals"]):
            client.send(test["kind"], name, 1)
        ack = client.flush(60)
    state = ask(f"{admin}/api/v1/actors/{test['actor']}/state/{name}?text=true")
    got = state["state"][test["counter"]]
    ask(f"{admin}/api/v1/erase", {"key": name})
    ask(f"{admin}/api/v1/producers/forget", {"name": name})
    if ack.next != test["signals"] or got != test["signals"]:
        raise SystemExit(f"sent {test['signals']}, acknowledged {ack.next}, {test['counter']} is {got}")
    return f"sent {test['signals']}, acknowledged at durability {ack.durability}, {test['counter']} is {got}: exact"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
    except (OSError, ba.ProtocolError, urllib.error.URLError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
