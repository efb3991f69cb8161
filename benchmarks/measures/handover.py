"""Events of 32 bytes from one process to another by what Python offers: Queue, Pipe, pyzmq; content checked.

`--by queue|pipe|zmq`, `--batch 1` sends each event as bytes of its own, larger ones as one bytes object a batch.
The receiver sums the events' numbers and counts those out of order; both must be what was sent. Processes are spawned.
The clock runs from the first batch received to the last.
"""

import argparse
import multiprocessing as mp
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks import measure

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

EVENT = np.dtype([("number", "u8"), ("key", "u8"), ("time", "u8"), ("value", "f8")])


def batches(events: int, batch: int) -> list[bytes]:
    """The events, numbered from 0, as one bytes object a batch."""
    all_of_it = np.zeros(events, EVENT)
    all_of_it["number"] = np.arange(events)
    raw = all_of_it.tobytes()
    step = batch * EVENT.itemsize
    return [raw[at : at + step] for at in range(0, len(raw), step)]


def send(by: str, way: Any, events: int, batch: int) -> None:
    """Send everything; runs in the child process."""
    put, close = sender(by, way)
    for data in batches(events, batch):
        put(data)
    close()


def sender(by: str, way: Any) -> tuple[Callable[[bytes], object], Callable[[], object]]:
    """How to send one bytes object, and how to end."""
    if by == "queue":
        return way.put, lambda: None
    if by == "pipe":
        return way.send_bytes, lambda: None
    import zmq  # type: ignore[import-not-found,unused-ignore]

    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.connect(way)
    return socket.send, lambda: (socket.close(), context.term())


def receiver(by: str) -> tuple[Any, Callable[[], bytes]]:
    """What to give the sender, and how to receive one bytes object."""
    if by == "queue":
        queue: mp.Queue[bytes] = mp.get_context("spawn").Queue(maxsize=1_024)
        return queue, queue.get
    if by == "pipe":
        receiving: Connection[Any, Any]
        receiving, sending = mp.get_context("spawn").Pipe(duplex=False)
        return sending, receiving.recv_bytes
    measure.need("zmq")
    import zmq

    socket = zmq.Context.instance().socket(zmq.PULL)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)  # a sender that died is an error, not a wait for ever
    address = f"ipc://{Path(tempfile.mkdtemp()) / 'handover'}"
    socket.bind(address)
    return address, socket.recv


def main() -> None:
    """Parse, run, check, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--by", choices=["queue", "pipe", "zmq"], required=True)
    parser.add_argument("--batch", type=int, default=1_024)
    parser.add_argument("--events", type=int, default=10_000)
    options = parser.parse_args()
    way, receive = receiver(options.by)
    child = mp.get_context("spawn").Process(target=send, args=(options.by, way, options.events, options.batch))
    child.start()
    parts = [receive()]
    begin = time.perf_counter()
    while len(parts) * options.batch < options.events:
        parts.append(receive())
    seconds = time.perf_counter() - begin
    child.join()
    got: npt.NDArray[np.uint64] = np.frombuffer(b"".join(parts), EVENT)["number"]
    if not np.array_equal(got, np.arange(options.events)):
        raise AssertionError(f"{options.by}: events lost, doubled or out of order")
    report_events = options.events - len(parts[0]) // EVENT.itemsize
    measure.report("", report_events / seconds / 1e6, "M/s", batch=options.batch, exact=True)


if __name__ == "__main__":
    main()
