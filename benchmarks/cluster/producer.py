"""`python -m benchmarks.cluster.producer DIRECTORY ADDRESSES NAME SECONDS KEYS`: sends, and tells what was acked.

One JSON object: acked, seconds until the last acknowledgement, gap_s: the longest time without one.
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

import bitactor as ba

BATCH = 65_536


def main():
    directory, addresses, name, seconds, keys = sys.argv[1:]
    dev = Path(directory)
    signals = np.random.default_rng(1).integers(1, int(keys) + 1, BATCH).astype("u8")
    values, aux = signals.astype("f8"), np.ones(BATCH, "u4")
    gap, over = [0.0], threading.Event()

    with ba.Client(
        addresses, producer=name, token_file=dev / "token", ca_file=dev / "ca.pem", server_name="localhost",
        buffer_signals=1 << 20,
    ) as client:  # fmt: skip

        def watch():
            acked, since = client.acked, time.monotonic()
            while not over.wait(0.002):
                now = time.monotonic()
                if client.acked != acked:
                    gap[0] = max(gap[0], now - since)
                    acked, since = client.acked, now

        watcher = threading.Thread(target=watch, daemon=True)
        begun = time.monotonic()
        watcher.start()
        while time.monotonic() < begun + float(seconds):
            client.send_batch(kind="reading", key=signals, value=values, aux=aux)
        client.flush(120)
        took = time.monotonic() - begun
        over.set()
        watcher.join()
        print(json.dumps({"acked": client.acked, "seconds": took, "gap_s": gap[0]}))


if __name__ == "__main__":
    main()
