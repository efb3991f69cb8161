"""A session of the ingest server that is fed any sequence of messages, in any pieces, in memory.

What must hold whatever comes: the server answers or closes and never raises; what was taken of a producer is the
beginning of its stream, once, in order; nothing is taken before a good hello, for another producer, or of a kind that
is forbidden.
"""

import asyncio
import logging
import random

import numpy as np

from bitactor.ingest.limits import Limits
from bitactor.ingest.server import Server
from bitactor.ingest.watch import Watched
from bitactor.protocol.messages import Ack, Close, Hello, Ping, Pong
from bitactor.signals import SIGNAL_DTYPE, text_key
from tests.fuzz.codecs import with_crc
from tests.ingest_tools import QUOTE, READER, SECRET, MemoryAdmission, frame, identities, signals
from tests.simulation import Transport

MESSAGES = [
    Hello(producer="p1", token=SECRET, client="f").encode(),
    Hello(producer="p2", token=SECRET, client="f").encode(),
    Hello(producer="p1", token=b"another token, which nobody was given", client="f").encode(),
    Hello(producer="q1", token=SECRET, client="f").encode(),
    Hello(producer="", token=READER, client="f").encode(),
    frame(3), frame(5, 3), frame(40, 8), frame(2, 100), frame(3, 0, "p2"), frame(3, 0, "p1", 2), frame(3, kind=QUOTE),
    Ping(7).encode(), Pong(7).encode(), Close(None, "bye").encode(), Ack(3, 1000, 3, 7).encode(),
]  # fmt: skip


class Wire:
    """What simulation.Transport wants of a connection."""

    def __init__(self):
        self.process = self
        self.alive, self.closed, self.ended = True, False, False
        self.to_client = bytearray()

    def close(self):
        self.closed = True


class Session:
    """An input: bytes that choose messages, pieces and damage. The first byte is a seed of the pieces' lengths."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.logger = logging.getLogger("bitactor.ingest")
        self.level = self.logger.level
        self.logger.setLevel(logging.CRITICAL)

    def seeds(self):
        return [bytes([1, 0, 5, 6, 7]), bytes([9, 1, 9, 12, 14]), bytes([3, 0, 5, 5, 0, 6, 8]), bytes([4, 4, 13, 15])]

    def one(self, data):
        self.loop.run_until_complete(self.talk(data))

    def close(self):
        self.logger.setLevel(self.level)
        self.loop.close()

    def messages(self, data, chance):
        """The bytes that are sent: whole messages, and damaged ones, some with the right checksum."""
        sent = bytearray()
        for choice in data[1:40]:
            message = MESSAGES[choice % len(MESSAGES)]
            if choice & 0x80:
                at = chance.randrange(len(message))
                message = message[:at] + bytes([message[at] ^ 1 << chance.randrange(8)]) + message[at + 1 :]
                if choice & 0x40:
                    message = with_crc(message, 32 if message[5:6] == b"\x01" else 12)
            sent += message if not choice & 0x20 or choice & 0x80 else message[: chance.randrange(len(message) + 1)]
        return bytes(sent)

    async def talk(self, data):
        chance = random.Random(data[0] if data else 0)
        raised = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: raised.append(context))
        admission = MemoryAdmission()
        server = Server(admission, Watched((), identities), tls=None, host="127.0.0.1", port=0, limits=Limits())
        server.loop = asyncio.get_running_loop()  # what start does, but for listening
        server._empty = asyncio.Event()
        admission.on_room(server._on_room)
        wire = Wire()
        channel = server._channel()
        channel.connection_made(Transport(wire))
        sent, at = self.messages(data, chance), 0
        while at < len(sent) and not wire.closed and channel.transport.is_reading():
            buffer = channel.get_buffer(-1)
            n = min(len(buffer), len(sent) - at, 1 + int(chance.expovariate(0.01)))
            buffer[:n] = sent[at : at + n]
            channel.buffer_updated(n)
            at += n
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        channel.connection_lost(None)
        await asyncio.sleep(0)
        assert not raised, raised
        self.judge(admission)

    def judge(self, admission):
        reached = {}
        for producer, epoch, begin, data in admission.taken:
            assert producer in (text_key("p1"), text_key("p2")), "a producer that this identity may not be"
            assert epoch == 1
            assert begin == reached.get(producer, 0), "taken twice, or a hole"
            got = np.frombuffer(data, SIGNAL_DTYPE)
            assert (got["kind"] == 1).all(), "a kind that is forbidden"
            assert got.tobytes() == signals(len(got), begin).tobytes(), "other signals than were sent"
            reached[producer] = begin + len(got)
        assert reached == {p: n for p, n in admission.next.items() if n}
