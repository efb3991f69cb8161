"""Ten producers in a process, each as fast as it can: `overload_sender.py DATA_DIR PORT SECONDS`; prints the acked.

Signal i of a producer has value i, key i modulo 1,000 and aux 1, so that a log can be checked without keeping them.
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

import bitactor as ba

BATCH = 32_768


def send(data, port, name, seconds, done):
    signals = np.zeros(BATCH, ba.SIGNAL_DTYPE)
    signals["kind"], signals["aux"], signals["time"] = 1, 1, 1
    steps = np.arange(BATCH)
    with ba.Client(
        f"127.0.0.1:{port}",
        producer=name,
        token_file=data / "dev" / "token",
        ca_file=data / "dev" / "ca.pem",
        server_name="localhost",
        buffer_signals=1 << 17,
    ) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            index = steps + client.next
            signals["key"], signals["value"] = index % 1000, index
            client.send_batch(signals)
        done[name] = client.flush(60).next


def main():
    data, port, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    done = {}
    threads = [threading.Thread(target=send, args=(data, port, f"p{i}", seconds, done)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(done))


if __name__ == "__main__":
    main()
