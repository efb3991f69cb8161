"""Producers in a process, each with a source that does not wait: `overload_sender.py DATA PORT SECONDS PRODUCERS RATE`.

A source makes RATE signals a second whatever becomes of them: what its client cannot take in time is shed there, and
counted. RATE 0: as fast as the client takes. Prints JSON: by producer, [offered, acknowledged], and the seconds.
Signal i of a producer has value i, key i modulo 1,000 and aux 1, so that a log can be checked without keeping them.
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

import bitactor as ba

PIECE = 1024


def send(data, port, name, seconds, rate, done):
    signals = np.zeros(PIECE, ba.SIGNAL_DTYPE)
    signals["kind"], signals["aux"], signals["time"] = 1, 1, 1
    steps = np.arange(PIECE)
    with ba.Client(
        f"127.0.0.1:{port}",
        producer=name,
        token_file=data / "dev" / "token",
        ca_file=data / "dev" / "ca.pem",
        server_name="localhost",
        buffer_signals=32_768,
    ) as client:
        begun = time.monotonic()
        offered = 0
        while (now := time.monotonic() - begun) < seconds:
            due = int(now * rate) // PIECE if rate else offered // PIECE + 1
            if due * PIECE == offered:
                time.sleep(0.001)
                continue
            offered = due * PIECE  # the pieces before the newest are shed
            index = steps + client.next
            signals["key"], signals["value"] = index % 1000, index
            client.send_batch(signals)
        done[name] = offered, client.flush(120).next, time.monotonic() - begun


def main():
    data, port, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    producers, rate = int(sys.argv[4]), float(sys.argv[5])
    done = {}
    threads = [threading.Thread(target=send, args=(data, port, f"p{i}", seconds, rate, done)) for i in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(done))


if __name__ == "__main__":
    main()
