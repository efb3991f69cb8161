"""A service in one thread, every step of which a seed decides: real sessions, admission, writer, engine, recovery.

Simulated are only the network (bytes that come in pieces, late, or never), the log and the snapshots' files (in memory,
with faults), the clock, and when the writer gets to work. The clients' sides are the shipped client's outbox and
session. One seed, one history: `python -m tests.simulation SEED` runs it again.

What is checked: the log holds each producer's signals once and in order; what anybody was told is durable is there;
state, tables and outputs are those of an inline replay, live and after each recovery; nothing unexpected is refused.
"""

import asyncio
import contextlib
import functools
import hashlib
import random
import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np

import bitactor as ba
from bitactor import faults
from bitactor.client.session import Session as ClientSession
from bitactor.ingest import auth
from bitactor.ingest.limits import Limits
from bitactor.ingest.server import Server
from bitactor.ingest.watch import Watched
from bitactor.log.contract import FatalLogError
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import decode_message
from bitactor.protocol.records import RecordType, read_record
from bitactor.runtime import core as core_module
from bitactor.runtime import recovery, snapshots, writer
from bitactor.runtime.core import Core
from tests.service_app import app
from tests.service_oracle import assert_same_state, stream, truth_of
from tests.simulated_parts import Clock, Crash, Inline, MemoryLog, MemoryStore, SimulatedHub, SimulatedWriter

TOKEN = b"a token of more than twenty characters"
NAMES = ("a", "b", "c")
STREAM = 60_000
EXPECTED = {Code.SUPERSEDED, Code.FENCED, Code.LOG_FULL, Code.SHUTTING_DOWN}
STREAMS = {name: stream(name, STREAM) for name in NAMES}


class InOrder(dict):
    """A set whose order is not that of addresses in memory."""

    def add(self, item):
        self[item] = None

    def discard(self, item):
        self.pop(item, None)


class Transport:
    """A server's end of a connection."""

    def __init__(self, wire):
        self.wire = wire
        self.reading = True

    def get_extra_info(self, _):
        return ("127.0.0.1", 1)

    def set_write_buffer_limits(self, _):
        pass

    def get_write_buffer_size(self):
        return 0

    def is_reading(self):
        return self.reading and not self.wire.closed

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def is_closing(self):
        return self.wire.closed

    def write(self, data):
        if self.wire.process.alive and not self.wire.closed:
            self.wire.to_client += data

    def write_eof(self):
        self.wire.ended = True

    def abort(self):
        self.wire.close()

    close = abort


class Wire:
    """A connection. held: the client has it still; without, what it sent may arrive all the same."""

    def __init__(self, process):
        self.process = process
        self.to_server, self.to_client = bytearray(), bytearray()
        self.closed = self.ended = False
        self.held = True
        self.channel = process.server._channel()
        self.channel.connection_made(Transport(self))
        process.wires.append(self)

    def deliver(self, n):
        """Some bytes reach the server, as far as it reads."""
        n = min(n, len(self.to_server))
        while n and not self.closed and self.channel.transport.is_reading():
            buffer = self.channel.get_buffer(-1)
            k = min(n, len(buffer))
            buffer[:k] = self.to_server[:k]
            del self.to_server[:k]
            n -= k
            self.channel.buffer_updated(k)
        if not self.held and not self.to_server:
            self.close()

    def close(self):
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.channel.connection_lost, None)


class Process:
    """A service from start to its end, whichever."""

    def __init__(self, world):
        self.world = world
        self.alive, self.stopping = True, None
        self.failures = []
        self.wires = []

    def alive_or_crash(self):
        if not self.alive:
            raise Crash

    async def start(self):
        world = self.world
        world.log.opened_by(self)
        settings = {
            "data_dir": "memory",
            "engine": {"shards": 0, "ring_signals": 65536},
            "log": {"kind": "sqlite", "durability": "full", "size_bytes_max": 4 << 20},
            "snapshot": {"every_s": 3600.0, "every_signals": 1 << 40, "keep": 2},
            "limits": {"producers_max": 100, "names_max": 1000, "heartbeat_s": 3600.0},
            "outputs": {"window": 1 << 17},
            "telemetry": {"otlp_endpoint": None, "otlp_headers": None, "sample_ratio": 0.0},
        }
        made = {k: SimpleNamespace(**v) if isinstance(v, dict) else v for k, v in settings.items()}
        self.core = Core(SimpleNamespace(**made), app, self.failures.append)
        await self.core.start()
        digest = (hashlib.sha256(TOKEN).digest(),)
        known = auth.Identities([auth.Identity("me", frozenset({"*"}), ("*",), read=True, tokens_sha256=digest)])
        window = world.rng.choice((8192, 20_000, 1 << 20))
        self.server = Server(
            self.core.admission, Watched((), lambda: known), tls=None, limits=Limits(window_signals=window)
        )
        self.server.loop = asyncio.get_running_loop()
        self.server._empty = asyncio.Event()
        self.server._empty.set()
        self.server._creditless, self.server._sessions = InOrder(), InOrder()
        self.core.admission.on_room(self.server._on_room)
        return self

    def die(self):
        """Nothing of this process reaches anybody from here on."""
        self.alive = False
        for wire in self.wires:
            wire.closed = True
        if self.stopping is not None:
            self.stopping.cancel()

    async def bury(self):
        self.die()
        if hasattr(self, "core"):
            for task in self.core._tasks:
                task.cancel()
            self.core._open.close()

    async def stop(self):
        """As Service.stop."""
        await self.server.stop(0 if self.failures else 5.0)
        await self.core.stop(snapshot=not self.failures and self.world.rng.random() < 0.7)


class Client:
    """A producer's program with the shipped client inside; moved step by step."""

    def __init__(self, world, name, *, takeover):
        self.world, self.name = world, name
        self.session = ClientSession(name, 8192 * 2, takeover=takeover, client="simulated")
        self.wire = None
        self.over = None
        self.texts = []

    def connect(self):
        if self.world.process.stopping is None:
            self.leave()
            self.wire = Wire(self.world.process)
            self.wire.to_server += self.session.hello(TOKEN)

    def leave(self):
        if self.wire is not None:
            self.wire.held = False
            if self.world.rng.random() < 0.5:
                self.wire.close()
            self.wire = None
            self.session.is_open = False

    def give(self, count):
        outbox = self.session.outbox
        if outbox is None or self.over:
            return
        if self.world.rng.random() < 0.2 and outbox.seal():
            text = f"{self.name}-{self.world.rng.randrange(40)}"
            _, message = self.session.name(text)
            if message and outbox.name(message):
                self.session.named(text, 0)
                self.texts.append((text, outbox.next))
        at = outbox.next + outbox.staged
        outbox.put(np.ascontiguousarray(STREAMS[self.name][at : at + count]), 0)
        if self.world.rng.random() < 0.8:
            outbox.seal()

    def send(self, most):
        outbox = self.session.outbox
        if self.wire is None or self.wire.closed or not self.session.is_open:
            return
        if (data := outbox.pending()) is not None:
            n = min(most, len(data))
            self.wire.to_server += data[:n]
            outbox.sent(n)

    def receive(self, most):
        wire = self.wire
        if wire is None:
            return
        data = bytes(wire.to_client[:most])
        del wire.to_client[:most]
        try:
            if data:
                wire.to_server += self.session.received(data)
                self.world.told(self)
            if not wire.to_client and (wire.closed or wire.ended):
                wire.close()
                self.leave()
        except ProtocolError as error:
            self.refused(error)

    def refused(self, error):
        world = self.world
        expected = EXPECTED | ({Code.INTERNAL} if world.process.failures else set())
        expected |= {Code.SEQUENCE_GAP} if self.name in world.forgotten | world.rivals else set()
        assert error.code in expected, f"{self.name}: {error}"
        self.leave()
        if error.code in (Code.SUPERSEDED, Code.FENCED, Code.SEQUENCE_GAP):
            self.over = error


class World:
    """One seed's history."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.clock = Clock(self.rng)
        self.log = MemoryLog(self)
        self.store = MemoryStore()
        self.process = None
        self.crash_in = None  # passings of crash points until one is fatal
        self.promised = dict.fromkeys(NAMES, 0)
        self.forgotten = set()
        self.rivals = set()  # producers with two programs at once: who sends signals may not be who sent their names
        self.erased = []  # keys whose erasure was asked for
        self.erasures = []  # and those that were told to be done
        self.tasks = InOrder()
        self.errors = []
        self.restarts = 0
        self.pace = 1  # how much of its turns the writer takes
        self.clients = []

    def point(self, _name):
        if self.process is not None:
            self.process.alive_or_crash()
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                self.process.die()
                raise Crash

    def told(self, client):
        ack = client.session.ack
        if ack is not None and client.session.is_open:
            known = self.promised[client.name]
            if client.name not in self.forgotten:
                alone = sum(other.name == client.name for other in self.clients) == 1  # else it may be read late
                if client.session.outbox.acks == 0 and alone:
                    assert ack.next >= known, "a welcome goes back behind what was acknowledged"
                self.promised[client.name] = max(known, ack.next)

    def handler(self, _loop, context):
        error = context.get("exception")
        if not isinstance(error, Crash):
            self.errors.append(error or context["message"])

    def spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def operate(self, what, done):
        process = self.process
        try:
            await what()
        except (ProtocolError, KeyError, RuntimeError, Crash, FatalLogError):
            return
        if process.alive:
            done()

    # --- the actions ---

    def erase(self):
        key = self.rng.choice(
            (self.rng.randrange(500), ba.text_key(f"{self.rng.choice(NAMES)}-{self.rng.randrange(40)}"))
        )
        self.erased.append(key)
        self.spawn(
            self.operate(functools.partial(self.process.core.admission.erase, key), lambda: self.erasures.append(key))
        )

    def forget(self):
        name = self.rng.choice(NAMES)
        self.forgotten.add(name)
        self.spawn(self.operate(functools.partial(self.process.core.admission.forget, ba.text_key(name)), lambda: None))

    def snapshot(self):
        self.spawn(self.operate(self.process.core.snapshots.take, lambda: None))

    def replace_client(self):
        client = self.rng.choice(self.clients)
        if self.rng.random() < 0.3 and len(self.clients) < 5:
            self.clients.append(Client(self, client.name, takeover=self.rng.random() < 0.5))
            self.rivals.add(client.name)
            return
        client.leave()
        self.clients.remove(client)
        self.clients.append(Client(self, client.name, takeover=self.rng.random() < 0.3))

    def give(self):
        self.rng.choice(self.clients).give(self.rng.choice((1, 7, 100, 800, 3000)))

    def send(self):
        client = self.rng.choice(self.clients)
        client.send(self.rng.choice((1, 50, 1000, 1 << 20, 1 << 20)))
        if client.wire is None and not client.over:
            client.connect()

    def deliver(self):
        if self.process.wires:
            self.rng.choice(self.process.wires[-8:]).deliver(self.rng.choice((1, 30, 5000, 1 << 20, 1 << 20)))

    def receive(self):
        self.rng.choice(self.clients).receive(self.rng.choice((1, 40, 1 << 20, 1 << 20)))

    def write(self):
        if self.rng.random() < self.pace:
            self.process.core.writer.step()

    def set_pace(self):
        self.pace = self.rng.choice((0, 0.2, 1, 1))

    def lose_connection(self):
        client = self.rng.choice(self.clients)
        client.leave()
        if self.rng.random() < 0.5:
            client.connect()

    def fill_log(self):
        self.log.fault = None if self.log.fault else "full"

    def fail_log(self):
        self.log.fault = self.rng.choice(("failed, kept", "failed, lost"))

    def arm_crash(self):
        self.crash_in = self.rng.randrange(30)

    def stop(self):
        if self.process.stopping is None:
            self.process.stopping = asyncio.get_running_loop().create_task(self.process.stop())

    def act(self):
        core = self.process.core
        actions = (
            *((180, self.give), (270, self.send), (200, self.deliver), (130, self.receive), (135, self.write)),
            *((5, self.set_pace), (10, self.lose_connection), (10, self.replace_client), (10, self.erase)),
            *((30, self.snapshot), (5, self.fill_log), (10, core._take_again), (5, core.admission.heartbeat)),
            *((1, self.forget), (1, self.fail_log), (4, self.arm_crash), (2, self.process.die), (1, self.stop)),
        )
        weights, functions = zip(*actions, strict=True)
        self.rng.choices(functions, weights)[0]()

    async def turn(self, steps):
        for _ in range(steps):
            await asyncio.sleep(0)
        process = self.process
        stopped = process.stopping is not None and process.stopping.done()
        if process.failures and process.alive and process.stopping is None:
            process.stopping = asyncio.get_running_loop().create_task(process.stop())
        elif not process.alive or stopped:
            await self.restart()

    async def restart(self):
        if self.process.alive:
            for _ in range(200):
                await asyncio.sleep(0)
            assert not self.tasks, "who asked a service that ended is never answered"
        for task in self.tasks:
            task.cancel()
        await self.process.bury()
        for client in self.clients:
            client.receive(1 << 20 if self.rng.random() < 0.5 else 0)
            client.leave()
        self.restarts += 1
        while True:
            self.process = Process(self)
            try:
                await self.process.start()
            except (Crash, FatalLogError):
                await self.process.bury()
                continue
            break
        self.check_state()

    async def run(self, actions):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.handler)
        self.process = await Process(self).start()
        self.clients = [Client(self, name, takeover=False) for name in NAMES]
        for _ in range(actions):
            with contextlib.suppress(Crash):
                self.act()
            await self.turn(self.rng.randrange(3))
            assert not self.errors, self.errors
        await self.settle()
        self.check_state()
        self.check_rest()
        await self.restart()
        await self.process.bury()
        for task in self.tasks:
            task.cancel()
        await asyncio.sleep(0)
        assert not self.errors, self.errors

    async def settle(self):
        """Without more faults all clients get all through."""
        self.log.fault = self.crash_in = None
        for client in list(self.clients):
            client.leave()
        self.clients = [Client(self, name, takeover=False) for name in NAMES] + [c for c in self.clients if not c.over]
        for _ in range(400):
            self.process.core._take_again()
            for wire in self.process.wires:
                wire.deliver(1 << 22)
            for client in self.clients:
                if client.wire is None and not client.over:
                    client.connect()
                if client.session.outbox is not None:
                    client.session.outbox.seal()
                client.send(1 << 22)
                client.receive(1 << 22)
            self.process.core.writer.step()
            await self.turn(3)
            if all(self.is_done(client) for client in self.clients) and not self.tasks:
                return
        raise AssertionError(f"not all is acknowledged in the end: {[self.said(client) for client in self.clients]}")

    def is_done(self, client):
        outbox = client.session.outbox
        return client.over or (client.session.is_open and outbox.acked == outbox.next and not outbox.staged)

    def said(self, client):
        outbox = client.session.outbox
        return client.name, client.over, client.session.is_open, outbox and (outbox.acked, outbox.next)

    # --- the checks ---

    def check_state(self):
        """State, tables and outputs of a service at rest are those that the log says."""
        core = self.process.core
        truth = truth_of(self.log.records, app)
        assert_same_state(core.engine.export_state(), truth.state)
        assert core.engine.statistics().conserved
        core.hub.catch_up()
        held = np.concatenate(
            [core.hub.rows(n) for n in range(core.hub.first, core.hub.count, 4096)] or [truth.outputs]
        )
        assert held.tobytes() == truth.outputs.tobytes(), "outputs"
        rows = {row.id: (row.name, row.identity, row.epoch, row.next) for row in core.tables.producers.values()}
        assert rows == {i: (p["name"], p["identity"], p["epoch"], p["next"]) for i, p in truth.producers.items()}
        assert core.tables.names == truth.names
        for name in NAMES:
            sent = truth.sent.get(ba.text_key(name), np.empty(0, ba.SIGNAL_DTYPE))
            assert sent.tobytes() == STREAMS[name][: len(sent)].tobytes(), "a signal is missing, twice, or changed"
            if name not in self.forgotten:
                assert len(sent) >= self.promised[name], "what was acknowledged is not in the log"
        logged = [decode_message(d).key for r in self.log.records for d in erasures_of(r)]
        for key in set(self.erasures):
            assert logged.count(key) >= self.erasures.count(key), "an erasure that was told is not in the log"
        for client in self.clients:
            if client.name not in self.forgotten | self.rivals and client.session.outbox is not None:
                for text, sequence in client.texts:
                    if client.session.outbox.acked > sequence and ba.text_key(text) not in self.erased:
                        assert truth.names.get(ba.text_key(text)) == text, "a name is missing"

    def check_rest(self):
        """Nothing is left over when all is done."""
        admission = self.process.core.admission
        assert not admission.pending and not admission._outstanding and not admission._names._ahead
        assert len(admission._free) == 2
        entries = {e.id: (e.epoch, e.next, e.acked, e.pending) for e in admission._entries.values()}
        assert entries == {r.id: (r.epoch, r.next, r.next, None) for r in admission.tables.producers.values()}


def erasures_of(raw):
    record = read_record(raw)
    return [] if record.type == RecordType.APP else [d for kind, d in record.items if kind == 34]


@contextlib.contextmanager
def simulated(world):
    opened = SimpleNamespace(open=lambda *_, **__: world.log)
    with contextlib.ExitStack() as stack:
        for where, name, what in (
            (core_module, "SqliteLog", opened),
            (core_module, "SnapshotStore", lambda *_, **__: world.store),
            (core_module, "Writer", SimulatedWriter),
            (core_module, "OutputHub", SimulatedHub),
            (core_module, "ThreadPoolExecutor", Inline),
            (snapshots, "ThreadPoolExecutor", Inline),
            (writer, "time", world.clock),
            (recovery, "time", world.clock),
            (faults, "point", world.point),
        ):
            stack.enter_context(mock.patch.object(where, name, what))
        yield


def simulate(seed, actions=400):
    """Run one history; AssertionError names what is wrong. Returns the world as it ended."""
    world = World(seed)
    with simulated(world):
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(world.run(actions))
        except BaseException as error:
            error.add_note(f"seed {seed}: python -m tests.simulation {seed}")
            raise
        finally:
            with contextlib.suppress(Exception):
                world.process.core._open.close()
            loop.close()
    return world


if __name__ == "__main__":
    first, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for seed in range(first, first + count):
        done = simulate(seed)
    print(f"{count} from {first}: good; the last had {len(done.log.records)} records, {done.restarts} restarts")
