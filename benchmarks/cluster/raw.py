"""What nats-py alone publishes to the same servers: records of one size into as many streams as there are lanes."""

import asyncio
import os
import time

import nats


async def publish(urls, *, replicas, lanes, size_bytes, seconds, in_flight):
    """(records, seconds that they took, processor seconds of this process).

    Each stream has `in_flight` records on their way, each acknowledged before the next.
    """
    client = await nats.connect(urls.split(","), pending_size=64 << 20)
    stream = client.jetstream(timeout=60)
    names = [f"raw-{lane}" for lane in range(lanes)]
    for name in names:
        await stream.add_stream(name=name, subjects=[name], num_replicas=replicas, max_bytes=1 << 30)
    data, done = os.urandom(size_bytes), 0
    begun, used = time.monotonic(), time.process_time()

    async def lane(name):
        nonlocal done
        while time.monotonic() < begun + seconds:
            await stream.publish(name, data)
            done += 1

    await asyncio.gather(*(lane(name) for name in names for _ in range(in_flight)))
    took, used = time.monotonic() - begun, time.process_time() - used
    for name in names:
        await stream.delete_stream(name)
    await client.close()
    return done, took, used
