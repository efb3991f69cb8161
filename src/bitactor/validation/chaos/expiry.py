"""A server certificate that expires while producers send, and one that takes its place.

Expected: connections that stand go on; new ones are refused by the client, which names the certificate, until a valid
one is there; then they go on where they were. Nothing acknowledged is lost.
"""

import signal
import ssl
import time
from typing import Any, Final

from bitactor.validation.campaign import CannotRun, DefectFoundError, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.producers import Producer
from bitactor.validation.served import LONG_PAUSE_S, promises, tell, world
from bitactor.validation.service import wait_until

COMMAND: Final = "bitactor chaos --only expiry"
VALID_S: Final = 6.0


def run(run: Run) -> None:
    """Let one expire, see what happens, renew it."""
    try:
        from bitactor.validation.certificates import Authority
    except ModuleNotFoundError as error:
        raise CannotRun(f"{error.name} is missing: pip install 'bitactor[service]'") from error
    authority = Authority(run.directory / "ca")
    cert, key = run.directory / "server.pem", run.directory / "server.key"
    authority.server(cert, key)
    refused = went_on = 0
    tls: dict[str, Any] = {"tls_cert_file": cert, "tls_key_file": key}
    with world(run, "ab", ca_file=authority.ca_file, pause_s=LONG_PAUSE_S, **tls) as w:
        w.served.start().ready()
        wait_until(lambda: all(one.connections for one in w.producers), "both producers connected")
        for turn in range(run.size("expiries")):
            run.say(f"certificate {turn + 1}")
            authority.server(cert, key, valid_s=VALID_S)
            begun = time.monotonic()
            w.served.running.send_signal(signal.SIGHUP)
            w.wait_for_acks(50)
            connections = sum(one.connections for one in w.producers)
            time.sleep(max(0.0, begun + VALID_S + 1.5 - time.monotonic()))
            run.happened("expired", f"round {turn + 1}")
            w.wait_for_acks(50)  # over connections that were there before
            went_on += sum(one.connections for one in w.producers) == connections
            refused += _is_refused(w.producers[0])
            before = w.producers[0].connections
            w.producers[0].lose_connection()
            time.sleep(0.5)
            if w.producers[0].connections != before:
                raise DefectFoundError("a producer connected although the certificate had expired")
            authority.server(cert, key)
            w.served.running.send_signal(signal.SIGHUP)
            run.happened("renewed", f"round {turn + 1}")
            wait_until(lambda: w.producers[0].connections > before, "the producer connected again")  # noqa: B023
            w.wait_for_acks(200)
        w.finish(500)
        findings = w.judge()
    rounds = run.size("expiries")
    run.measure("expiry.not-refused", rounds - refused, "new connections under an expired certificate")
    run.measure("expiry.dropped", rounds - went_on, "rounds in which a standing connection was lost")
    tell(run, "expiry", findings)


def _is_refused(producer: Producer, tries: int = 5) -> bool:
    """Whether a new connection fails because the certificate has expired; one that fails otherwise is tried again."""
    for _ in range(tries):
        try:
            producer.connect().close()
        except ssl.SSLCertVerificationError as error:
            return "expired" in str(error)
        except OSError:
            continue
        return False
    return False


PART = Part(
    "expiry",
    "A certificate that expires",
    (
        Criterion("expiry.not-refused", "Expired certificates that were taken", Threshold("==", 0), "times", COMMAND),
        Criterion("expiry.dropped", "Standing connections lost by it", Threshold("==", 0), "rounds", COMMAND),
        *promises("expiry", COMMAND),
    ),
    run,
)
