"""A running service, measured from outside by the shipped client: rate, acknowledgements, what a second try does.

It sends as producers named validate-SEED-..., whose signals stay in that service's state: use one that may keep them.
"""

import time
from typing import Any

from bitactor import Client
from bitactor.validation.campaign import CannotRun, Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.load import signals_at
from bitactor.validation.plots import histogram, line
from bitactor.validation.streams import stream

COMMAND = "bitactor validate --target HOST:PORT"
BATCH = 4096


def run(run: Run) -> None:
    """Send for a while at full speed, then small batches one by one, then connect again and look where it goes on."""
    if run.target is None:
        raise CannotRun("no --target was given")
    given: dict[str, Any] = {k: v for k, v in run.target.items() if v is not None}
    producer = f"validate-{run.seed}"
    with Client(producer=producer, **given) as client:
        kind = next((kind for kind in client.kinds if any(kind == own for own in run.app.kinds)), client.kinds[0])
        template = stream(run.app, producer, 65_536, run.seed % 2**32, kinds=[kind])
        first, begun = client.next, time.monotonic()
        rates: list[tuple[float, float]] = []
        while (elapsed := time.monotonic() - begun) < run.sizes["target_s"]:
            client.send_batch(signals_at(template, client.next, BATCH))
            rates.append((elapsed, (client.acked - first) / max(elapsed, 0.001)))
        ack = client.flush(120)
        seconds, sent = time.monotonic() - begun, client.next - first
        latencies = []
        for _ in range(200):
            at = time.monotonic()
            client.send_batch(signals_at(template, client.next, 10))
            client.flush(30)
            latencies.append(1e3 * (time.monotonic() - at))
        sent_in_all = client.next
    with Client(producer=producer, **given) as again:
        goes_on, durability = again.next, ack.durability
    run.count("target.signals", {"sent": sent + 2000}, {"acknowledged": goes_on - first})
    run.measure(
        "target.goes-on", abs(goes_on - sent_in_all), "a second connection of the producer is told where it was"
    )
    run.measure("target.rate", sent / seconds, f"one producer, kind {kind.name}, frames of up to 8,192")
    ordered = sorted(latencies)
    run.measure(
        "target.ack-p99", ordered[int(len(ordered) * 0.99)], f"ten signals at a time; p50 {ordered[100]:.2f} ms"
    )
    run.measure("target.durability", durability, "as the acknowledgements say: 0 memory, 1 os, 2 normal, 3 disk")
    run.plot(line("target", "Acknowledged a second, since the beginning", "seconds", "signals/s", rate=rates))
    run.plot(histogram("target", "Ten signals sent and acknowledged", "ms", latencies))


PART = Part(
    "target",
    "A running service from outside",
    (
        Criterion(
            "target.goes-on", "Signals known otherwise after reconnecting", Threshold("==", 0), "signals", COMMAND
        ),
        Criterion("target.rate", "Rate of one producer", Threshold(">=", 10_000, warn=100_000), "signals/s", COMMAND),
        Criterion("target.ack-p99", "99% of acknowledgements within", Threshold("<=", 1000, warn=100), "ms", COMMAND),
        Criterion("target.durability", "Durability of acknowledgements", Threshold(">=", 1, warn=3), "", COMMAND),
    ),
    run,
)
