"""The receiving side alone: from the socket through TLS and session to decoded frames, beside raw receive of the bytes.

--row rate: signals a second on the loop's thread, for raw uvloop receive into a buffer (plain and TLS 1.3), for
sessions whose admission decodes with the C decoder into a record, and for sessions whose admission only counts. The
sender is a process of its own; it repeats frames made before. What the server's thread can do is told by its processor
time; by the clock it also waits for the sender, and on a machine of few cores they share.
--row connected, --row handshaken: resident memory for each of many connections that say nothing, before and after the
TLS handshake.
"""

import argparse
import asyncio
import multiprocessing
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import bitactor as ba
from benchmarks import measure
from bitactor.ingest import auth, certs, tls
from bitactor.ingest.limits import Limits
from bitactor.ingest.server import Server
from bitactor.ingest.watch import Watched
from bitactor.protocol.frames import encode_frame
from bitactor.protocol.messages import Close, Hello, Welcome
from bitactor.protocol.records import RecordBuilder
from bitactor.signals import text_key

TOKEN = b"a token for a benchmark on loopback"
FRAMES = 32  # different ones, sent over and over: 8 MiB
Clock = tuple[float, float]  # by the clock, by the processor


def now() -> Clock:
    return time.perf_counter(), time.process_time()


def connect(port: int, directory: Path | None) -> socket.socket:
    import ssl

    connection = socket.create_connection(("127.0.0.1", port))
    if directory is None:
        return connection
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context.wrap_socket(connection, server_hostname="localhost")


def send(port: int, directory: Path | None, count: int, signals: int, greet: bool) -> None:
    """The sender's process: hello if asked for, then frames of `count` signals until `signals` are sent."""
    kind = ba.App("bench").kind("tick", 1)
    batch = ba.make_signals(kind, np.arange(count) % 10_000, np.arange(count) * 0.5, time=1)
    number = text_key("bench")
    frames = [encode_frame(batch, producer=number, sequence=at * count, epoch=1) for at in range(FRAMES)]
    data = b"".join(frames)
    with connect(port, directory) as connection:
        if greet:
            connection.sendall(Hello("bench", token=TOKEN).encode())
            connection.recv(65536)
        for _ in range(-(-signals // (count * FRAMES))):
            connection.sendall(data)
        if greet:
            connection.sendall(Close().encode())
            while connection.recv(65536):  # acks, and the end
                pass


class Raw(asyncio.BufferedProtocol):
    """Receives into one buffer and counts."""

    def __init__(self, size: int, done: asyncio.Event) -> None:
        self.buffer, self.done, self.bytes = memoryview(bytearray(size)), done, 0
        self.first: Clock | None = None
        self.last = now()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.first is None:
            self.first = now()
        self.bytes += nbytes
        self.last = now()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set()


class Counting:
    """An admission that decodes each frame into a record, or only counts it; always with room, acks at once."""

    kinds = {"tick": 1}  # noqa: RUF012
    has_room = True

    def __init__(self, decode: bool) -> None:
        self.builder = RecordBuilder() if decode else None
        self.signals = 0
        self.first: Clock | None = None
        self.last = now()
        self.done = asyncio.Event()
        self._due = False

    def on_room(self, callback: Callable[[], None]) -> None:
        pass

    def welcome(self, producer: Any) -> Welcome:
        return Welcome(producer=producer.id, epoch=1)

    async def open_producer(self, identity: str, hello: Hello, on_ack: Any, on_lost: Any) -> Any:
        self.on_ack = on_ack
        # Frames are repeated: `next` stays at 0, so that none is past the credit.
        return SimpleNamespace(id=text_key("bench"), epoch=1, next=0)

    def close_producer(self, producer: Any) -> None:
        self.done.set()

    def admit(self, producer: Any, frame: memoryview, kinds: bytes) -> int:
        if self.first is None:
            self.first = now()
        count = len(frame) // 32 - 2
        if self.builder is not None:
            if not self.builder.has_room(8192):
                self.builder.clear()
            self.builder.add_frame(frame, kinds)
        self.signals += count
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._ack)
        self.last = now()
        return count

    def _ack(self) -> None:
        self._due = False
        self.on_ack(0, 0, 0)


def files(directory: Path) -> tls.TlsFiles:
    made = certs.development(directory)
    return tls.TlsFiles(made.cert_file, made.key_file)


def identities() -> auth.Identities:
    digest = auth.hashlib.sha256(TOKEN).digest()
    return auth.Identities([auth.Identity("bench", frozenset({"*"}), ("*",), tokens_sha256=(digest,))])


def server(admission: Any, directory: Path | None, **limits: float) -> Server:
    """On loopback, on a port that is free."""
    secure = tls.watched(files(directory)) if directory is not None else None
    return Server(admission, Watched((), identities), tls=secure, port=0, limits=Limits(**limits))


async def received(how: str, directory: Path | None, count: int, signals: int) -> tuple[float, float]:
    """Signals a second: by the clock, and of the server's processor time."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    counted: Any
    if how == "raw":
        counted = Raw(64 + 32 * count if count > 1000 else 65536, done)
        context = tls.server_context(files(directory)) if directory is not None else None
        listener = await loop.create_server(lambda: counted, "127.0.0.1", 0, ssl=context)
        port = listener.sockets[0].getsockname()[1]
    else:
        counted = Counting(decode=how == "session")
        done = counted.done
        serving = server(counted, directory)
        await serving.start()
        port = serving.addresses[0][1]
    sender = multiprocessing.get_context("spawn").Process(
        target=send, args=(port, directory, count, signals, how != "raw")
    )
    sender.start()
    await asyncio.wait_for(done.wait(), 120)
    if how == "raw":
        listener.close()
        got = counted.bytes / (64 + 32 * count) * count
    else:
        await serving.stop(5)
        got = counted.signals
    sender.join()
    began = counted.first or counted.last
    return got / (counted.last[0] - began[0]), got / max(counted.last[1] - began[1], 1e-9)


def rates(signals: int) -> None:
    import uvloop

    with tempfile.TemporaryDirectory() as made:
        for name, directory in (("TLS", Path(made)), ("plain", None)):
            for count in (8192, 100):
                some = signals if count == 8192 else signals // 4
                for how in ("raw", "session, counting", "session"):
                    clock, processor = uvloop.run(received(how, directory, count, some))
                    row = f"{name}, frames of {count:,}, {how}"
                    measure.report(f"{row}: by the server's processor time", processor / 1e6, "M/s")
                    measure.report(f"{row}: by the clock", clock / 1e6, "M/s")


def resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def crowd(port: int, directory: Path, connections: int, handshake: bool, orders: Any) -> None:
    """The clients' process: connect, say so, hold until told to go."""
    held = [connect(port, directory if handshake else None) for _ in range(connections)]
    orders.send(len(held))
    orders.recv()
    for connection in held:
        connection.close()


async def idle(connections: int, directory: Path, handshake: bool) -> float:
    """Bytes of resident memory for each connection."""
    serving = server(
        Counting(decode=False), directory, connections_max=connections + 1, connections_per_peer_max=connections + 1,
        handshake_s=600,
    )  # fmt: skip
    await serving.start()
    before = resident()
    ours, theirs = multiprocessing.Pipe()
    arguments = (serving.addresses[0][1], directory, connections, handshake, theirs)
    clients = multiprocessing.get_context("spawn").Process(target=crowd, args=arguments)
    clients.start()
    while not ours.poll() or serving.counters.connections < connections:  # noqa: ASYNC110  (of another process)
        await asyncio.sleep(0.02)
    assert not handshake or serving.counters.handshakes == connections
    after = resident()
    ours.send("go")
    await serving.stop(30)
    clients.join()
    return (after - before) / connections


def memory(connections: int, handshake: bool) -> None:
    import uvloop

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as made:
        files(Path(made))
        each = uvloop.run(idle(connections, Path(made), handshake))
    what = "TLS done, no hello" if handshake else "connected"
    measure.report(f"{what}: resident memory a connection", each / 1024, "KiB", connections=connections)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--row", choices=("rate", "connected", "handshaken"), required=True)
    parser.add_argument("--signals", type=int, default=40_000_000)
    parser.add_argument("--connections", type=int, default=2_000)
    options = parser.parse_args()
    measure.need("uvloop", "cryptography")
    if options.row == "rate":
        rates(options.signals)
    else:
        memory(options.connections, options.row == "handshaken")


if __name__ == "__main__":
    sys.exit(main())
