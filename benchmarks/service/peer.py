"""The other side, a process of its own, with the shipped client: `peer DATA ADDRESS WHAT ...` prints one JSON line."""

import asyncio
import json
import socket
import ssl
import sys
import time
from pathlib import Path

import numpy as np

import bitactor as ba
from bitactor.protocol.frames import encode_frame
from bitactor.protocol.messages import Hello, decode_message, message_length

BATCH = 65_536


def connect(data, address, **given):
    development = Path(data) / "dev"
    return ba.Client(
        address, producer="bench", token_file=development / "token", ca_file=development / "ca.pem",
        server_name="localhost", **given,
    )  # fmt: skip


def batch(keys, size=BATCH):
    rng = np.random.default_rng(1)
    signals = np.zeros(size, ba.SIGNAL_DTYPE)
    signals["kind"], signals["aux"], signals["time"] = 1, 5, time.time_ns()
    signals["key"] = rng.integers(0, keys, size) if keys < size else np.arange(size)
    signals["value"] = rng.random(size) * 100 + 1
    return signals


def send(data, address, seconds, keys):
    """As many signals as go in `seconds`, and the acknowledgement of the last one."""
    signals = batch(int(keys))
    with connect(data, address) as client:
        client.send_batch(signals)
        client.flush()
        first, begun, cpu = client.next, time.perf_counter(), time.process_time()
        end = begun + float(seconds)
        while time.perf_counter() < end:
            client.send_batch(signals)
        client.flush()
        took = time.perf_counter() - begun
        return {"rate": (client.next - first) / took, "signals": client.next, "cpu": (time.process_time() - cpu) / took}


def count(data, address, number, keys):
    """Exactly `number` signals over `keys` keys, each key in turn."""
    number, keys = int(number), int(keys)
    with connect(data, address) as client:
        signals = batch(keys)
        for begin in range(0, number, BATCH):
            part = signals[: min(BATCH, number - begin)]
            part["key"] = (np.arange(len(part)) + begin) % keys
            client.send_batch(part)
        client.flush()
        return {"signals": client.next}


def ack(data, address, rounds):
    """Seconds from sending one signal to its acknowledgement: percentiles."""
    took = []
    with connect(data, address, linger_s=0.0) as client:
        for _ in range(int(rounds)):
            begun = time.perf_counter()
            client.send("trade", 7, 1.5, 2, time=1)
            client.flush()
            took.append(time.perf_counter() - begun)
    late = took[len(took) // 5 :]
    return {"p50": float(np.percentile(late, 50)), "p99": float(np.percentile(late, 99))}


def ack_async(data, address, rounds):
    """As ack, by the client for asyncio, whose loop is the only thread."""
    development = Path(data) / "dev"

    async def run():
        took = []
        async with ba.AsyncClient(
            address, producer="bench", token_file=development / "token", ca_file=development / "ca.pem",
            server_name="localhost", linger_s=0.0,
        ) as client:  # fmt: skip
            for _ in range(int(rounds)):
                begun = time.perf_counter()
                await client.send("trade", 7, 1.5, 2, time=1)
                await client.flush()
                took.append(time.perf_counter() - begun)
        late = took[len(took) // 5 :]
        return {"p50": float(np.percentile(late, 50)), "p99": float(np.percentile(late, 99))}

    return asyncio.run(run())


def wire(data, address, rounds):
    """As ack, by one blocking socket and no client: what the service and the network take."""
    host, port = address.rsplit(":", 1)
    development, took, received = Path(data) / "dev", [], b""
    context = ssl.create_default_context(cafile=development / "ca.pem")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname="localhost") as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def receive():
            nonlocal received
            while True:
                length = message_length(received) if received else 0
                if length and len(received) >= length:
                    message, received = decode_message(received[:length]), received[length:]
                    return message
                received += connection.recv(4096)

        connection.sendall(Hello("bench", token=(development / "token").read_bytes().strip()).encode())
        welcome, signal = receive(), batch(7, 1)
        for sequence in range(welcome.next, welcome.next + int(rounds)):
            frame = encode_frame(signal, producer=welcome.producer, sequence=sequence, epoch=welcome.epoch)
            begun = time.perf_counter()
            connection.sendall(frame)
            while receive().next <= sequence:
                pass
            took.append(time.perf_counter() - begun)
    late = took[len(took) // 5 :]
    return {"p50": float(np.percentile(late, 50)), "p99": float(np.percentile(late, 99))}


def main():
    data, address, what, *rest = sys.argv[1:]
    verbs = {each.__name__: each for each in (send, count, ack, ack_async, wire)}
    print(json.dumps(verbs[what](data, address, *rest)))


if __name__ == "__main__":
    main()
