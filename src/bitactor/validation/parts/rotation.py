"""The certificate replaced while producers send: no connection dropped, no signal lost, the new one shown."""

import signal
import socket
import ssl
import time
from pathlib import Path

from bitactor.validation.campaign import CannotRun, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.probes import FAILED_MAX
from bitactor.validation.served import promises, tell, world
from bitactor.validation.service import wait_until

COMMAND = "bitactor validate --only rotation"


def run(run: Run) -> None:
    """Replace, SIGHUP, look at what a new connection is shown; again."""
    try:
        from bitactor.validation.certificates import Authority, serial_of
    except ModuleNotFoundError as error:
        raise CannotRun(f"{error.name} is missing: pip install 'bitactor[service]'") from error
    rounds = run.size("rotations")
    authority = Authority(run.directory / "ca")
    cert, key = run.directory / "server.pem", run.directory / "server.key"
    authority.server(cert, key)
    slowest, shown, failed = 0.0, 0, 0

    def look(port: int) -> int:
        nonlocal failed
        try:
            return serial_of(_shown(port, authority.ca_file))
        except OSError as error:  # counted: a busy machine may not answer in time
            failed += 1
            run.happened("handshake failed", repr(error))
            return 0

    with world(run, ca_file=authority.ca_file, tls_cert_file=cert, tls_key_file=key) as w:
        w.served.start().ready()
        for producer in w.producers:
            producer.pause_s = 0.002
        w.wait_for_acks(100)
        before = sum(one.lost_connections for one in w.producers)
        connections = sum(one.connections for one in w.producers)
        for turn in range(rounds):
            run.say(f"certificate {turn + 1} of {rounds}")
            serial = authority.server(cert, key)
            begun = time.monotonic()
            w.served.running.send_signal(signal.SIGHUP)
            port = w.served.port
            wait_until(lambda port=port, serial=serial: look(port) == serial, "the new certificate", 60)
            shown += 1
            slowest = max(slowest, time.monotonic() - begun)
            run.happened("new certificate", f"round {turn + 1}")
            w.wait_for_acks(20)
        dropped = sum(one.lost_connections for one in w.producers) - before
        again = sum(one.connections for one in w.producers) - connections
        w.finish(1000)
        findings = w.judge()
    run.measure("rotation.rounds", shown, "each under load, by SIGHUP")
    run.measure("rotation.shown", shown / rounds, f"{shown} of {rounds}; the slowest after {slowest:.2f} s")
    run.measure("rotation.dropped", dropped + again, "connections of three producers that sent all the time")
    run.measure("rotation.handshakes-failed", failed, "of connections made to look at the certificate")
    tell(run, "rotation", findings)


def _shown(port: int, ca_file: Path) -> bytes:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    raw = socket.create_connection(("127.0.0.1", port), timeout=20)
    with raw, context.wrap_socket(raw, server_hostname="localhost") as connection:
        return connection.getpeercert(binary_form=True) or b""


PART = Part(
    "rotation",
    "Certificate rotation under load",
    (
        Criterion(
            "rotation.rounds", "Certificates replaced and shown", Threshold(">=", 1), "", COMMAND, at_least="rotations"
        ),
        Criterion("rotation.shown", "Share of new certificates that were shown", Threshold("==", 1), "", COMMAND),
        Criterion("rotation.dropped", "Connections dropped by it", Threshold("==", 0), "connections", COMMAND),
        Criterion(
            "rotation.handshakes-failed", f"New connections that failed (up to {FAILED_MAX} are told and let pass)",
            Threshold("<=", FAILED_MAX, warn=0), "connections", COMMAND,
        ),
        *promises("rotation", COMMAND),
    ),
    run,
)  # fmt: skip
