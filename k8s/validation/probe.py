"""What k8s/validate_deployment.sh runs in its pods, out of the service's own image: probe.py WHAT [ARGUMENT...].

Each prints one line of JSON; exit status 1 when what it looks for is not so. /secrets has ca.crt, token and admin.
"""

import contextlib
import json
import os
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

SECRETS = Path("/secrets")
CONNECT_S = 5
KEYS = 16  # of a steady load, so that more than one lane, and so more than one pod, has work


def say(**figures):
    """The line."""
    print(json.dumps(figures), flush=True)


def split(address):
    """(host, port) of "host:port"."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def reach(address):
    """Whether a TCP connection can be made; for pods that must, or must not."""
    try:
        with socket.create_connection(split(address), timeout=3):
            say(reached=True)
    except OSError as error:
        say(reached=False, error=f"{type(error).__name__}: {error}")


def listen(port):
    """Accept connections for ever, for others to try."""
    server = socket.create_server(("", int(port)))
    say(listening=int(port))
    while True:
        connection, _ = server.accept()
        connection.close()


def tls(address):
    """Version, names and days left; older versions and plain text are refused."""
    context = ssl.create_default_context(cafile=str(SECRETS / "ca.crt"))
    with (
        socket.create_connection(split(address), CONNECT_S) as raw,
        context.wrap_socket(raw, server_hostname=split(address)[0]) as secure,
    ):
        version, certificate = secure.version(), secure.getpeercert()
    ends = datetime.strptime(certificate["notAfter"], "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
    days = (ends - datetime.now(UTC)).days
    old = ssl.create_default_context(cafile=str(SECRETS / "ca.crt"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    older_refused = False
    try:
        with socket.create_connection(split(address), CONNECT_S) as raw:
            old.wrap_socket(raw, server_hostname=split(address)[0])
    except (ssl.SSLError, OSError):
        older_refused = True
    with socket.create_connection(split(address), CONNECT_S) as raw:
        raw.sendall(b"BAC1" + bytes(60))
        answer = raw.recv(200)
    plain_refused = b"tls" in answer.lower() or not answer
    say(version=version, days=days, older_refused=older_refused, plain_refused=plain_refused)
    return version == "TLSv1.3" and older_refused and plain_refused


def get(url, token=None):
    """(status, text)."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def admin_token():
    """Of the admin port."""
    return (SECRETS / "admin").read_text().strip()


def health(admin):
    """The three probes, and metrics with a token and not without."""
    probes = {path: get(f"{admin}{path}")[0] for path in ("/livez", "/readyz", "/startupz")}
    without, _ = get(f"{admin}/metrics")
    status, text = get(f"{admin}/metrics", admin_token())
    families = len({line.split()[2] for line in text.splitlines() if line.startswith("# TYPE bitactor_")})
    good = set(probes.values()) == {200} and without == 401 and status == 200 and families > 30
    say(probes=probes, without_token=without, with_token=status, families=families)
    return good


def ask(admin, path, body=None):
    """The API's answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {admin_token()}", "content-type": "application/json"}
    request = urllib.request.Request(f"{admin}/api/v1/{path}", data, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def client(address, producer, secrets=SECRETS):
    """A client as whoever the token is."""
    import bitactor as ba

    return ba.Client(address, producer=producer, token_file=secrets / "token", ca_file=secrets / "ca.crt", connect_s=30)


def unique(prefix):
    """A name of this run."""
    return f"{prefix}-{os.urandom(5).hex()}"


def roundtrip(address, admin, kind, actor, counter, signals):
    """Signals under a key of their own; the state must count each once. Key and producer are forgotten after it."""
    name, wanted = unique("validate"), int(signals)
    with client(address, name) as sender:
        for _ in range(wanted):
            sender.send(kind, name, 1)
        ack = sender.flush(60)
    got = ask(admin, f"actors/{actor}/state/{name}?text=true")["state"][counter]
    tidy(admin, name)
    say(sent=wanted, acknowledged=ack.next, counted=got, durability=ack.durability)
    return wanted == ack.next == got


def tidy(admin, name):
    """Erase the key and forget the producer of that name."""
    with contextlib.suppress(urllib.error.HTTPError):
        ask(admin, "erase", {"key": name})
        ask(admin, "producers/forget", {"name": name})


def latency(address, kind, count, secrets):
    """One signal, its acknowledgement, the next: percentiles in milliseconds."""
    times = []
    with client(address, unique("latency"), Path(secrets)) as sender:
        for number in range(int(count) + 200):
            begun = time.perf_counter()
            sender.send(kind, 1, 1.0)
            sender.flush(30)
            if number >= 200:
                times.append(time.perf_counter() - begun)
    times.sort()
    at = {f"p{name}_ms": round(1000 * times[int(share * len(times))], 3) for name, share in (("50", 0.5), ("99", 0.99))}
    say(requests=len(times), **at, max_ms=round(1000 * times[-1], 3))


def steady(address, admin, kind, actor, counter, rate, seconds):
    """A rate for a time over KEYS keys, in pieces of 20 ms: sent, counted, and the longest gap in acknowledgements."""
    import numpy as np

    name, rate, seconds = unique("steady"), float(rate), float(seconds)
    piece = max(KEYS, int(rate / 50) // KEYS * KEYS)
    names = [f"{name}-{number}" for number in range(KEYS)]
    gap = _Gap()
    with client(address, name) as sender:
        keys, values = np.tile(np.array([sender.key(text) for text in names], np.uint64), piece // KEYS), np.ones(piece)
        watcher = threading.Thread(target=gap.watch, args=(sender,))
        watcher.start()
        begun, sent = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            sender.send_batch(kind=kind, key=keys, value=values)
            sent += piece
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        ack = sender.flush(120)
        gap.over = True
        watcher.join()
    took = time.monotonic() - begun
    counts = [counted(admin, actor, counter, text) for text in names]
    got = sum(counts)
    for text in names:
        tidy(admin, text)
    tidy(admin, name)
    say(
        sent=sent,
        acknowledged=ack.next,
        counted=got,
        per_second=round(sent / took),
        gap_ms_max=round(1000 * gap.longest),
        durability=ack.durability,
    )
    return sent == ack.next == got and set(counts) == {sent // KEYS}


def counted(admin, actor, counter, key):
    """What a key's state counts; asked again for a while where a lane is just changing hands."""
    end = time.monotonic() + 30
    while True:
        try:
            return ask(admin, f"actors/{actor}/state/{key}?text=true")["state"][counter]
        except urllib.error.URLError as error:
            if getattr(error, "code", 503) != 503 or time.monotonic() > end:
                raise
        time.sleep(0.5)


class _Gap:
    """The longest time in which `acked` of a client stood still while it sends."""

    def __init__(self):
        self.longest = 0.0
        self.over = False

    def watch(self, sender):
        """Look every five milliseconds."""
        last, since = sender.acked, time.monotonic()
        while not self.over:
            time.sleep(0.005)
            now = time.monotonic()
            if sender.acked != last:
                last, since = sender.acked, now
            self.longest = max(self.longest, now - since)


def running():
    """Of the service's own pod: who it is, what it may, what it can write, when it was ready."""
    status = dict(line.split(":", 1) for line in Path("/proc/1/status").read_text().splitlines() if ":" in line)
    facts = {
        "uid": int(status["Uid"].split()[0]),
        "gid": int(status["Gid"].split()[0]),
        "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        "no_new_privileges": int(status["NoNewPrivs"]),
        "seccomp": int(status["Seccomp"]),
        "token": Path("/var/run/secrets/kubernetes.io").exists(),
        "shell": any(Path(name).exists() for name in ("/bin/sh", "/usr/bin/sh", "/bin/bash")),
    }
    facts["root_writable"] = not os.statvfs("/").f_flag & os.ST_RDONLY  # writing would fail for this user in any case
    token = Path("/etc/bitactor/admin/token").read_text().strip()
    _, text = get("http://127.0.0.1:8080/metrics", token)
    for line in text.splitlines():
        if line.startswith("bitactor_start_timestamp_seconds "):
            facts["ready_at"] = float(line.split()[1])
    say(**facts)
    wanted = {"capabilities": 0, "no_new_privileges": 1, "seccomp": 2, "token": False, "shell": False}
    return facts["uid"] > 0 and not facts["root_writable"] and all(facts[k] == v for k, v in wanted.items())


if __name__ == "__main__":
    found = globals()[sys.argv[1]](*sys.argv[2:])
    sys.exit(1 if found is False else 0)
