"""Routers and lanes without NATS and without engines: real routers, real intakes, a network of ours in between.

A lane keeps the signals that its records bring, in order. The network delays, loses answers and asks again, and a
router may die with anything on its way. Everything follows from the seed of the dice.
"""

import asyncio
import json
from collections import defaultdict, deque

import numpy as np

import bitactor as ba
from bitactor.cluster.intake import Intake, told
from bitactor.cluster.parts import bundle_items
from bitactor.cluster.router import Router
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import encode_frame, kind_set
from bitactor.protocol.messages import Hello
from bitactor.protocol.records import RecordBuilder, read_record
from bitactor.runtime.records import effects_of, take_effect
from bitactor.runtime.tables import Tables
from bitactor.signals import lanes_of

KIND = 1
app = ba.App("parts")
trade = app.kind("trade", KIND, value="f8", aux="u4")
KINDS = kind_set(app.kinds)


class Lane:
    """A lane's log and its intake. records: what was appended; another owner begins from them alone."""

    def __init__(self, number, dice, record_bytes=1 << 20):
        self.number, self.dice, self.record_bytes = number, dice, record_bytes
        self.records = []
        self.writing = deque()  # by this owner or a former one, in order
        self.generation = 0
        self.own()

    def own(self):
        """A new owner: what the former one had admitted and not appended is gone."""
        self.generation += 1
        if self.generation > 1:
            self.intake.fail(ProtocolError(Code.NOT_READY, "another owns this lane"))
        self.tables = Tables()
        for data in self.records:
            take_effect(self.tables, effects_of(read_record(data, KINDS).items)[0])
        generation = self.generation
        builders = [RecordBuilder(bytes_max=self.record_bytes) for _ in range(3)]
        self.intake = Intake(
            self.tables, builders, lambda record: self.submit(record, generation), kinds=KINDS,
            producers_max=100, names_max=100, hold=self.nothing,
        )  # fmt: skip

    async def nothing(self):
        """Hold back nothing."""

    def submit(self, record, generation):
        self.writing.append((record, generation))
        asyncio.get_running_loop().call_later(self.dice.random() * 0.002, self.append)

    def append(self):
        record, generation = self.writing.popleft()
        if generation != self.generation:
            return  # fenced
        data = bytes(record.builder.finish(len(self.records), 0, 1, self.number, 7))
        self.records.append(data)
        take_effect(self.tables, record.effects)
        self.intake.completed(record)

    def signals(self):
        """All signals of the log, in order."""
        parts = [read_record(data, KINDS).signals.copy() for data in self.records]
        return np.concatenate(parts) if parts else np.empty(0, ba.SIGNAL_DTYPE)


class Network:
    """Calls and Link for routers. faults: the share of questions of which something is lost."""

    def __init__(self, lanes, dice, faults):
        self.lanes, self.dice, self.faults = lanes, dice, faults
        self.heard = []

    async def ask(self, lane, verb, question, *, within_s, much=False):
        while True:
            await asyncio.sleep(self.dice.random() * 0.001)
            if self.dice.random() < self.faults:
                continue  # the question is lost
            target = self.lanes[lane]
            generation = target.generation
            try:
                async with asyncio.timeout(1):
                    answer = await self.answer(target, verb, question)
            except TimeoutError:
                continue
            except ProtocolError as error:
                if error.code == Code.NOT_READY:
                    continue
                raise
            if self.dice.random() < self.faults or generation != target.generation:
                continue  # the answer is lost
            return answer

    async def ask_json(self, lane, verb, question, *, within_s):
        return json.loads(await self.ask(lane, verb, json.dumps(question).encode(), within_s=within_s))

    async def answer(self, lane, verb, question):
        if verb == "bundle":
            refused = await lane.intake.take(bundle_items(memoryview(question)))
            return json.dumps(
                {"durability": 17, "position": 0,
                 "refused": [[r.item, int(r.error.code), r.error.message, r.error.sequence] for r in refused]}
            ).encode()  # fmt: skip
        asked = json.loads(question)
        about = asked["id"], asked["name"], asked["identity"], asked["epoch"]
        if verb == "open":
            row = await lane.intake.open(*about, takeover=asked["takeover"])
        else:
            row = await (lane.intake.fence(*about) if asked["fence"] else lane.intake.row(asked["id"]))
        return json.dumps(told(row)).encode()

    async def listen(self, verb, heard):
        self.heard.append(heard)

    async def tell_all(self, verb, said):
        for heard in self.heard:
            heard(said)


async def make_router(network, lanes, linger_s=0.0005):
    """A router over the network, started."""
    router = Router(
        network, network, None, kinds=app.kinds, app="parts", fingerprint="00", lanes=lanes, linger_s=linger_s,
        positions=tuple,
    )  # fmt: skip
    await router.start()
    return router


class Stream:
    """A producer's signals, and what it was acknowledged. The value of a signal is its sequence."""

    def __init__(self, name, count, keys, dice):
        self.name, self.count, self.dice = name, count, dice
        self.keys = np.array([dice.randrange(keys) for _ in range(count)], "u8")
        self.acked = 0
        self.lost = None

    def frame(self, held, begin, end):
        signals = np.zeros(end - begin, ba.SIGNAL_DTYPE)
        signals["kind"], signals["key"], signals["time"] = KIND, self.keys[begin:end], 1
        signals["value"] = np.arange(begin, end)
        return memoryview(encode_frame(signals, producer=held.id, epoch=held.epoch, sequence=begin))

    def on_ack(self, next_, durability, position):
        assert next_ >= self.acked
        self.acked = next_

    def on_lost(self, code, message):
        self.lost = code

    async def connect(self, router, *, takeover=False):
        """Open at a router, as a client does that keeps what is not acknowledged."""
        self.lost = None
        try:
            held = await router.open_producer("me", Hello(self.name, 0, takeover), self.on_ack, self.on_lost)
        except ProtocolError:
            return None
        assert held.next >= self.acked, f"{self.name} was acknowledged {self.acked} and is to go on at {held.next}"
        self.acked = held.next  # as a client takes it
        return held

    async def send(self, router, held, upto, cut):
        """Send from held.next on in frames of at most `cut`."""
        while held.next < upto and self.lost is None:
            begin = held.next
            end = min(upto, begin + self.dice.randint(1, cut))
            try:
                router.admit(held, self.frame(held, begin, end), KINDS)
            except ProtocolError:
                return
            if self.dice.random() < 0.3:
                await asyncio.sleep(self.dice.random() * 0.002)


def check(streams, lanes):
    """Every signal is in its lane once, and a producer's are in its order there. What is wrong, in words."""
    wrong = []
    for lane in lanes:
        by_producer = defaultdict(list)
        for data in lane.records:
            record = read_record(data, KINDS)
            at, producers = 0, []
            for kind, item in record.items:
                if kind == 1:
                    producer = int.from_bytes(item[8:16], "big")
                    count = int.from_bytes(item[20:24], "big")
                    producers.append((producer, at, at + count))
                    at += count
            for producer, begin, end in producers:
                by_producer[producer].extend(record.signals["value"][begin:end].astype(int).tolist())
        for stream in streams:
            mine = lanes_of(stream.keys, len(lanes)) == lane.number
            wanted = np.flatnonzero(mine[: stream.acked]).tolist()
            got = by_producer.get(ba.text_key(stream.name), [])
            if got[: len(wanted)] != wanted:
                wrong.append(f"lane {lane.number}: of {stream.name} {got[:20]}… where {wanted[:20]}… was acknowledged")
            if got != np.flatnonzero(mine)[: len(got)].tolist():
                wrong.append(f"lane {lane.number}: of {stream.name} something is twice, missing or out of order")
    return wrong
