"""Records for tests of logs: real headers, payloads that say which record they are of."""

import random
from typing import NamedTuple

from bitactor._core._codec import crc32c
from bitactor.log.check import HEADER, MAGIC, VERSION


class Made(NamedTuple):
    """A record and what append wants to know of it."""

    record: bytes
    sequence: int
    position: int
    count: int
    wall_ns: int

    def to(self, log):
        log.append(memoryview(self.record), **self.facts())

    def facts(self):
        return {name: getattr(self, name) for name in ("sequence", "position", "count", "wall_ns")}


def make(sequence, position, count, wall_ns, payload):
    """The bytes of a record."""
    fields = [MAGIC, VERSION, 1, 0, sequence, position, wall_ns, 0, count, 0, len(payload), 0, 0, b"the app."]
    head = HEADER.pack(*fields)
    fields[7] = crc32c(payload, crc32c(head[36:], crc32c(head[:32])))
    return HEADER.pack(*fields) + payload


def record(sequence, length=200, seed=0):
    """Record number `sequence` of an endless stream: the same for the same arguments, all of it unlike the others."""
    dice = random.Random(sequence * 1000003 + seed)
    position, count, wall_ns = sequence * 10, 10, 1_000 + sequence // 2
    return Made(make(sequence, position, count, wall_ns, dice.randbytes(length)), sequence, position, count, wall_ns)
