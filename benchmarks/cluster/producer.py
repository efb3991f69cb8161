"""`python -m benchmarks.cluster.producer DIRECTORY ADDRESSES NAME SECONDS KEYS INGEST`: sends; tells what was acked.

One JSON object: acked, seconds until the last acknowledgement, gap_s: the longest time without one, cpu_s: what this
process used of processors meanwhile. INGEST: tls or plain.
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

import bitactor as ba

BATCH = 65_536
CONNECTED_S = 100


def connected(*target, **options):
    """A client, once a replica has time for it."""
    until = time.monotonic() + CONNECTED_S
    while True:
        try:
            return ba.Client(*target, **options)
        except OSError:
            if time.monotonic() > until:
                raise


def main():
    directory, addresses, name, seconds, keys, ingest = sys.argv[1:]
    dev = Path(directory)
    tls = {"ca_file": dev / "ca.pem", "server_name": "localhost"} if ingest == "tls" else {"plain_text": True}
    signals = np.random.default_rng(1).integers(1, int(keys) + 1, BATCH).astype("u8")
    values, aux = signals.astype("f8"), np.ones(BATCH, "u4")
    gap, over = [0.0], threading.Event()

    with connected(addresses, producer=name, token_file=dev / "token", buffer_signals=1 << 20, **tls) as client:

        def watch():
            acked, since = client.acked, time.monotonic()
            while not over.wait(0.002):
                now = time.monotonic()
                if client.acked != acked:
                    gap[0] = max(gap[0], now - since)
                    acked, since = client.acked, now

        watcher = threading.Thread(target=watch, daemon=True)
        begun, used = time.monotonic(), time.process_time()
        watcher.start()
        while time.monotonic() < begun + float(seconds):
            client.send_batch(kind="reading", key=signals, value=values, aux=aux)
        client.flush(120)
        took = time.monotonic() - begun
        over.set()
        watcher.join()
        cpu_s = time.process_time() - used
        print(json.dumps({"acked": client.acked, "seconds": took, "gap_s": gap[0], "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
