"""What the machine gives without a service: bytes through uvloop, plain and TLS 1.3, and blobs into SQLite."""

import multiprocessing
import os
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path

CHUNK = 1 << 18


def _tls(ca_file):
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _push(port, ca_file, seconds):
    raw = socket.create_connection(("127.0.0.1", port))
    if ca_file:
        raw = _tls(ca_file).wrap_socket(raw, server_hostname="localhost")
    data, end = bytes(CHUNK), time.monotonic() + seconds
    with raw:
        while time.monotonic() < end:
            raw.sendall(data)


def receive(seconds, *, secure):
    """Bytes a second that a BufferedProtocol on uvloop takes and forgets from a process beside it."""
    import asyncio

    import uvloop

    from bitactor.ingest import certs

    with tempfile.TemporaryDirectory() as directory:
        context = ca_file = None
        if secure:
            files = certs.development(Path(directory))
            ca_file = str(Path(directory) / "ca.pem")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(files.cert_file, files.key_file)

        class Sink(asyncio.BufferedProtocol):
            def __init__(self):
                self.buffer, self.bytes = bytearray(CHUNK), 0

            def connection_made(self, transport):
                self.begun = time.perf_counter()

            def get_buffer(self, sizehint):
                return self.buffer

            def buffer_updated(self, nbytes):
                self.bytes += nbytes

            def connection_lost(self, exc):
                done.set_result(self.bytes / (time.perf_counter() - self.begun))

        async def serve():
            nonlocal done
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            server = await loop.create_server(Sink, "127.0.0.1", 0, ssl=context)
            port = server.sockets[0].getsockname()[1]
            sender = multiprocessing.get_context("spawn").Process(target=_push, args=(port, ca_file, seconds))
            await loop.run_in_executor(None, sender.start)
            rate = await done
            await loop.run_in_executor(None, sender.join)
            server.close()
            return rate

        done = None
        return uvloop.run(serve())


def sqlite(seconds):
    """Bytes a second of 256 KiB blobs, a transaction each, WAL with synchronous FULL, checkpoints included."""
    import apsw
    import apsw.bestpractice

    with tempfile.TemporaryDirectory() as directory:
        connection = apsw.Connection(f"{directory}/raw.sqlite")
        connection.execute("PRAGMA page_size = 65536")
        apsw.bestpractice.connection_wal(connection)
        connection.execute("PRAGMA synchronous = full")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, blob BLOB)")
        blob, written, begun = bytes(CHUNK), 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            connection.execute("INSERT INTO t (blob) VALUES (?)", (blob,))
            written += CHUNK
        took = time.perf_counter() - begun
        connection.close()
        return written / took


def sync(seconds):
    """(p50, p99) seconds of an fdatasync behind 4 KiB appended: what an acknowledgement of SQLite FULL waits for."""
    took, end = [], time.perf_counter() + seconds
    with tempfile.TemporaryFile(buffering=0) as file:
        while len(took) < 20 or time.perf_counter() < end:
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100]


def idle(address, number, ca_file=None):
    """Open so many connections that say nothing, with ca_file after their TLS handshake; the open sockets."""
    host, port = address.rsplit(":", 1)
    opened = []
    lock = threading.Lock()
    context = None if ca_file is None else _tls(ca_file)

    def some(n):
        for _ in range(n):
            connection = socket.create_connection((host, int(port)))
            if context is not None:
                connection = context.wrap_socket(connection, server_hostname="localhost")
            with lock:
                opened.append(connection)

    threads = [threading.Thread(target=some, args=(number // 8,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return opened
