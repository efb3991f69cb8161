"""What others carry on this machine: `brokers.py WHAT SECONDS` prints one JSON line with signals a second.

Frames of 1,000 signals (32,000 bytes), made before the clock starts; broker, sender and receiver are processes of their
own on loopback, plain text. None of them checks, decodes or applies a signal. Runs in the environment of
benchmarks/requirements/brokers.txt, without bitactor; NATS and Redis' and Mosquitto's servers are found or left out.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIGNALS = 1000
FRAME = os.urandom(32 * SIGNALS)
JETSTREAM_BYTES = 128 << 10  # with a sync a message, so fewer and fuller ones
WINDOW = 256  # frames that a sender may be ahead of its receiver: a core NATS or MQTT broker drops what is too much
END = b"end"


class AbsentError(Exception):
    """A program that is not on this machine."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(program, arguments, port):
    """A broker in a directory of its own until it listens, ended afterwards. arguments: of (port, directory)."""
    path = shutil.which(program) or shutil.which(program, path=f"{Path(sys.executable).parent}:/usr/sbin")
    if path is None:
        raise AbsentError(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="bitactor-bench-") as directory:
        process = subprocess.Popen(
            [path, *arguments(port, directory)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise AbsentError(f"{program} does not start") from None
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(20)


def apart(function, *arguments):
    """The function in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


# --- NATS, and JetStream ---


def _nats_send(port, seconds):
    import nats

    async def run():
        connection = await nats.connect(f"nats://127.0.0.1:{port}", pending_size=64 << 20)
        acked, changed = 0, asyncio.Event()

        async def ack(message):
            nonlocal acked
            acked = int(message.data)
            changed.set()

        await connection.subscribe("ack", cb=ack)
        await asyncio.sleep(0.5)
        sent, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            while sent - acked > WINDOW and time.monotonic() < end:
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), 0.1)
            for _ in range(16):
                await connection.publish("frames", FRAME)
                sent += 1
            await asyncio.sleep(0)
        await connection.publish("frames", END)
        await connection.flush()
        await connection.close()

    asyncio.run(run())


async def _nats_receive(port, seconds):
    import nats

    connection = await nats.connect(f"nats://127.0.0.1:{port}")
    subscription = await connection.subscribe("frames", pending_bytes_limit=1 << 30)
    sender = apart(_nats_send, port, seconds)
    count, begun = 0, None
    async for message in subscription.messages:
        if message.data == END:
            break
        begun = begun or time.perf_counter()
        count += 1
        if count % 32 == 0:
            await connection.publish("ack", str(count).encode())
    took = time.perf_counter() - begun
    sender.join()
    await connection.close()
    return {"rate": count * SIGNALS / took}


def nats(seconds):
    """Publish and subscribe; nothing is kept."""
    port = free_port()
    with server("nats-server", lambda port, _: ["-a", "127.0.0.1", "-p", str(port)], port):
        return asyncio.run(_nats_receive(port, seconds))


def _jetstream_arguments(port, directory):
    config = Path(directory) / "nats.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{directory}", sync_interval: always }}\n')
    return ["-c", str(config)]


async def _jetstream(port, seconds):
    import nats

    connection = await nats.connect(f"nats://127.0.0.1:{port}", pending_size=64 << 20)
    stream = connection.jetstream()
    await stream.add_stream(name="frames", subjects=["frames"], max_bytes=4 << 30)
    payload, waiting, count = FRAME * 4 + FRAME[: JETSTREAM_BYTES - 4 * len(FRAME)], set(), 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or waiting:
        while len(waiting) < 8 and time.perf_counter() - begun < seconds:
            waiting.add(asyncio.create_task(stream.publish("frames", payload, timeout=30)))
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
            count += 1
    took = time.perf_counter() - begun
    await connection.close()
    return {"rate": count * JETSTREAM_BYTES / 32 / took}


def jetstream(seconds):
    """Publish to a file stream, each message synced before it is acknowledged, eight on their way."""
    port = free_port()
    with server("nats-server", _jetstream_arguments, port):
        return asyncio.run(_jetstream(port, seconds))


# --- Redis ---


def redis(seconds):
    """XADD in pipelines of 64 into a stream that keeps about 10,000 entries; nothing on the disk, nobody reads."""
    import redis as library

    port = free_port()
    quiet = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    with server("redis-server", lambda port, directory: ["--port", str(port), "--dir", directory, *quiet], port):
        client = library.Redis(port=port)
        count, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(64):
                    pipeline.xadd("frames", {"f": FRAME}, maxlen=10_000, approximate=True)
                pipeline.execute()
            count += 64
        return {"rate": count * SIGNALS / (time.perf_counter() - begun)}


# --- MQTT ---


def _mqtt(port):
    from paho.mqtt import client as library

    client = library.Client(library.CallbackAPIVersion.VERSION2)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    return client


def _mqtt_send(port, seconds):
    import threading

    client, acked, changed = _mqtt(port), [0], threading.Event()

    def heard(_client, _data, message):
        acked[0] = int(message.payload)
        changed.set()

    client.on_message = heard
    client.subscribe("ack")
    client.loop_start()
    time.sleep(0.5)
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        while sent - acked[0] > WINDOW and time.monotonic() < end:
            changed.clear()
            changed.wait(0.1)
        client.publish("frames", FRAME)
        sent += 1
    for _ in range(20):  # a broker may drop what its receiver does not take in time
        client.publish("frames", END).wait_for_publish()
        time.sleep(0.1)
    client.disconnect()


def mqtt(seconds):
    """Mosquitto, quality of service 0."""
    port = free_port()
    with server("mosquitto", lambda port, _: ["-p", str(port)], port):
        client, count, begun, done = _mqtt(port), 0, None, None

        def heard(_client, _data, message):
            nonlocal count, begun, done
            if message.payload == END:
                done = time.perf_counter()
                client.disconnect()
                return
            begun = begun or time.perf_counter()
            count += 1
            if count % 32 == 0:
                client.publish("ack", str(count))

        client.on_message = heard
        client.subscribe("frames")
        sender = apart(_mqtt_send, port, seconds)
        client.loop_forever()
        sender.join()
        return {"rate": count * SIGNALS / (done - begun)}


# --- ZeroMQ ---


def _pyzmq_send(port, seconds):
    import zmq

    context = zmq.Context()
    pusher = context.socket(zmq.PUSH)
    pusher.connect(f"tcp://127.0.0.1:{port}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(16):
            pusher.send(FRAME, copy=False)
    pusher.send(END)
    pusher.close()
    context.term()


def pyzmq(seconds):
    """PUSH to PULL over TCP, no broker."""
    import zmq

    context = zmq.Context()
    puller = context.socket(zmq.PULL)
    port = puller.bind_to_random_port("tcp://127.0.0.1")
    sender = apart(_pyzmq_send, port, seconds)
    count, begun = 0, None
    while len(puller.recv(copy=False)) != len(END):
        begun = begun or time.perf_counter()
        count += 1
    took = time.perf_counter() - begun
    sender.join()
    return {"rate": count * SIGNALS / took}


PEERS = {each.__name__: each for each in (nats, redis, mqtt, pyzmq, jetstream)}


def main():
    """One peer."""
    try:
        print(json.dumps(PEERS[sys.argv[1]](float(sys.argv[2]))))
    except AbsentError as absent:
        print(json.dumps({"absent": str(absent)}))


if __name__ == "__main__":
    main()
