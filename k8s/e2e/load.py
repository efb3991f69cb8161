"""What sends in the client's pod of the end-to-end check: load.py steady|flights ARGUMENT... Prints one line of JSON.

steady ADDRESS RATE: signals of kind reading at a rate over KEYS keys until /tmp/stop is there; then what was sent to
each key, what was acknowledged, and the times for which acknowledgements stood still while signals waited for one.
flights ADDRESS FILE: an array of signals, all of it.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

import bitactor as ba

SECRETS = Path("/secrets")
STOP = Path("/tmp/stop")
KEYS = 16
PIECES_A_SECOND = 50
GAP_MS_MIN = 20


def connect(address, producer):
    """A client that goes on for as long as it takes."""
    return ba.Client(address, producer=producer, token_file=SECRETS / "token", ca_file=SECRETS / "ca.crt", connect_s=60)


class Gaps:
    """The times for which `acked` stood still, as [Unix time of the begin, milliseconds]."""

    def __init__(self, client):
        self.client = client
        self.found = []
        self.over = False
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self):
        last, since = self.client.acked, time.monotonic()
        while not self.over:
            time.sleep(0.002)
            now = time.monotonic()
            if self.client.acked != last or self.client.next == last:
                length = 1000 * (now - since)
                if length > GAP_MS_MIN:
                    self.found.append([time.time() - length / 1000, round(length)])
                last, since = self.client.acked, now

    def end(self):
        """What was found."""
        self.over = True
        self.thread.join()
        return self.found


def steady(address, rate):
    """At a rate until told to stop."""
    name, rate = f"steady-{os.urandom(5).hex()}", float(rate)
    piece = max(KEYS, int(rate / PIECES_A_SECOND) // KEYS * KEYS)
    names = [f"{name}-{n}" for n in range(KEYS)]
    begun = time.monotonic()
    with connect(address, name) as client:
        keys = np.tile(np.array([client.key(text) for text in names], np.uint64), piece // KEYS)
        values = np.ones(piece)
        gaps, sent = Gaps(client), 0
        print(json.dumps({"ready": name}), flush=True)
        while not STOP.exists():
            client.send_batch(kind="reading", key=keys, value=values)
            sent += piece
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        ack = client.flush(180)
        found = gaps.end()
    took = time.monotonic() - begun
    STOP.unlink()
    each = sent // KEYS
    figures = {"name": name, "keys": names, "sent": sent, "each": each, "acked": ack.next, "durability": ack.durability}
    print(json.dumps({**figures, "per_second": round(sent / took), "gaps": found}), flush=True)


def flights(address, file):
    """All signals of a file."""
    signals = np.load(file)
    with connect(address, f"flights-{os.urandom(5).hex()}") as client:
        begun = time.perf_counter()
        client.send_batch(signals)
        ack = client.flush(300)
        took = time.perf_counter() - begun
    figures = {"sent": len(signals), "acked": ack.next, "durability": ack.durability, "seconds": round(took, 3)}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
