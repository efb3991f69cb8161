"""A real server on real sockets for the tests of ingest, with an admission that keeps everything in memory."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import uvloop

import bitactor as ba
from bitactor.config import Settings
from bitactor.ingest import auth, certs, tls
from bitactor.ingest.limits import Limits
from bitactor.ingest.server import Server
from bitactor.ingest.watch import Watched
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import decode_frame, encode_frame
from bitactor.protocol.messages import FROM_SERVER, Ack, Hello, Welcome, decode_message, message_length
from bitactor.runtime.service import Service
from bitactor.signals import text_key

app = ba.App("ingest")
TRADE = app.kind("trade", 1)
QUOTE = app.kind("quote", 2)


@app.actor(TRADE, state={"n": "u8", "total": "f8"})
def totals(state, signal):
    state.n += 1
    state.total += signal.value


SECRET = b"a token of more than twenty characters"
READER = b"another token, for one who only reads"


def identities():
    def digest(token):
        return (auth.hashlib.sha256(token).digest(),)

    return auth.Identities(
        [
            auth.Identity("sender", frozenset({"trade"}), ("p*",), read=False, tokens_sha256=digest(SECRET)),
            auth.Identity("reader", frozenset({"*"}), (), read=True, tokens_sha256=digest(READER)),
            auth.Identity("collector", frozenset({"*"}), ("*",), certificate="collector-1"),
        ]
    )


def signals(n, first=0, kind=TRADE):
    index = np.arange(first, first + n)
    return ba.make_signals(kind, index % 97, index * 1.5, time=1)


def frame(n=3, sequence=0, producer="p1", epoch=1, kind=TRADE):
    return encode_frame(signals(n, sequence, kind), producer=text_key(producer), sequence=sequence, epoch=epoch)


@dataclass
class Holder:
    id: int
    epoch: int
    next: int
    on_ack: object
    on_lost: object


class MemoryAdmission:
    """Takes frames into a list. room: signals that may be pending; acks: "at once", or "later" by settle()."""

    def __init__(self, room=1 << 40, acks="at once"):
        self.kinds = {kind.name: kind.number for kind in app.kinds}
        self.room, self.acks = room, acks
        self.taken = []  # (producer, epoch, sequence, bytes of the signals)
        self.names = {}
        self.next = {}
        self.owner = {}
        self.holders = {}
        self.pending = 0
        self.duplicates = 0
        self.closed = 0
        self.subscribed = []
        self._room_callback = None
        self._settling = False

    def state(self):
        """All that input may change, to be compared."""
        return list(self.taken), dict(self.names), dict(self.next), dict(self.owner)

    @property
    def has_room(self):
        return self.pending + 8192 <= self.room

    def on_room(self, callback):
        self._room_callback = callback

    def welcome(self, producer):
        common = {"app": "ingest", "fingerprint": "ab", "kinds": tuple(app.kinds), "server": "test"}
        if producer is None:
            return Welcome(**common)
        return Welcome(producer=producer.id, epoch=producer.epoch, next=producer.next, durability=3, **common)

    async def open_producer(self, identity, hello, on_ack, on_lost):
        await asyncio.sleep(0)
        number = text_key(hello.producer)
        if self.owner.setdefault(number, identity) != identity:
            raise ProtocolError(Code.PRODUCER_FORBIDDEN, "it is another's")
        before = self.holders.get(number)
        if before is not None:
            before.on_lost(Code.SUPERSEDED, "a newer connection of this producer")
        self.holders[number] = Holder(number, 1, self.next.setdefault(number, 0), on_ack, on_lost)
        return self.holders[number]

    def close_producer(self, producer):
        self.closed += 1
        if self.holders.get(producer.id) is producer:
            del self.holders[producer.id]

    def admit(self, producer, data, kinds):
        assert self.has_room
        got = decode_frame(data, kinds)
        if got.producer != producer.id:
            raise ProtocolError(Code.PRODUCER_FORBIDDEN, "not this connection's producer", offset=8)
        if got.epoch != producer.epoch:
            raise ProtocolError(Code.FENCED, "not this epoch", offset=16)
        if got.sequence > producer.next:
            raise ProtocolError(Code.SEQUENCE_GAP, f"{producer.next} is next", offset=24, sequence=got.sequence)
        known = min(producer.next - got.sequence, len(got.signals))
        self.duplicates += known
        new = len(got.signals) - known
        if new:
            self.taken.append((producer.id, got.epoch, producer.next, got.signals[known:].tobytes()))
            producer.next += new
            self.next[producer.id] = producer.next
            self.pending += new
            if self.acks == "at once" and not self._settling:
                self._settling = True
                asyncio.get_running_loop().call_soon(self.settle)
        return new

    def admit_name(self, producer, name):
        if text_key(name.text) != name.key:
            raise ProtocolError(Code.NAME_MISMATCH, "not its number")
        self.names[name.key] = name.text

    def settle(self, signals=None):
        """Acknowledge all that is pending (or make room for so many signals); loop thread."""
        self._settling = False
        had_room = self.has_room
        self.pending -= self.pending if signals is None else min(signals, self.pending)
        position = sum(self.next.values())
        for holder in list(self.holders.values()):
            holder.on_ack(holder.next, 3, position)
        if not had_room and self.has_room:
            self._room_callback()

    async def subscribe(self, identity, subscribe, write):
        await asyncio.sleep(0)
        if not subscribe.live:
            raise ProtocolError(Code.OUTPUT_GONE, "too old")
        subscription = Subscription(write)
        self.subscribed.append(subscription)
        return subscription


class Subscription:
    def __init__(self, write):
        self.write, self.resumed, self.closed = write, 0, False

    def resume(self):
        self.resumed += 1

    def close(self):
        self.closed = True


class Serving:
    """A server in a thread with a loop of its own. `on_loop(f)` runs f there and gives its result."""

    def __init__(self, admission=None, *, files=None, loop="uvloop", known=None, host="127.0.0.1", **limits):
        self.admission = admission or MemoryAdmission()
        self.files = files
        self._known = known or Watched((), identities)
        self._limits = Limits(**limits)
        self._host, self._factory = host, {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}[loop]

    def __enter__(self):
        started = threading.Event()

        async def run():
            self._stop = asyncio.Event()
            try:
                stop = await self._start()
                self.loop = asyncio.get_running_loop()
                self.port = self.server.addresses[0][1]
            finally:
                started.set()
            await self._stop.wait()
            await stop()

        def thread():
            with asyncio.Runner(loop_factory=self._factory) as runner:
                runner.run(run())

        self._thread = threading.Thread(target=thread)
        self._thread.start()
        started.wait()
        return self

    async def _start(self):
        """Make self.server and start it; what stops it."""
        self.server = Server(
            self.admission, self._known, tls=tls.watched(self.files) if self.files else None,
            host=self._host, port=0, limits=self._limits,
        )  # fmt: skip
        await self.server.start()
        return lambda: self.server.stop(5)

    def __exit__(self, *exc):
        self.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        counters = self.server.counters
        assert counters.connections == counters.authenticated == counters.receive_bytes == 0
        assert not +counters.paused, counters.paused

    def stop(self):
        """Ask the server to stop; it may be over already."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._stop.set)

    def on_loop(self, function, *arguments):
        async def call():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def until(self, condition, seconds=10):
        """Wait until condition() holds on the loop."""
        end = time.monotonic() + seconds
        while not self.on_loop(condition):
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.005)

    @property
    def refused(self):
        return dict(self.on_loop(lambda: +self.server.counters.refused))


class Peer:
    """A client made of a socket. Reads whole messages; `secure`: an ssl context."""

    def __init__(self, port, secure=None, host="127.0.0.1", buffer_bytes=None):
        self.socket = socket.socket()
        if buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.socket.settimeout(10)
        self._bytes = b""
        try:
            self.socket.connect((host, port))
            if secure is not None:
                self.socket = secure.wrap_socket(self.socket, server_hostname="localhost")
        except OSError:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, (bytes, memoryview)) else data.encode())

    def receive(self):
        """The next message; None: the server ended the connection."""
        while True:
            length = message_length(self._bytes, FROM_SERVER) if self._bytes else 0
            if length and len(self._bytes) >= length:
                data, self._bytes = self._bytes[:length], self._bytes[length:]
                return decode_message(data, FROM_SERVER)
            try:
                more = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError):
                more = b""
            if not more:
                assert not self._bytes, "the server ended within a message"
                return None
            self._bytes += more

    def hello(self, producer="p1", token=SECRET, **fields):
        self.send(Hello(producer=producer, token=token, client="test", **fields))
        return self.receive()

    def acked(self, sequence):
        """Read until everything below `sequence` is acknowledged; the last ack."""
        while True:
            message = self.receive()
            assert isinstance(message, Ack), message
            if message.next >= sequence:
                return message

    def error(self):
        """The error that the server says before it ends the connection; other messages are passed over."""
        last = None
        while (message := self.receive()) is not None:
            last = message
        return last


def client_context(directory, name=None, **settings):
    """A context that trusts the CA in `directory` and shows that client certificate."""
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    if name is not None:
        context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
    for setting, value in settings.items():
        setattr(context, setting, value)
    return context


def tls_files(directory, *, client_required=False, client_ca=True):
    files = certs.development(directory)
    return tls.TlsFiles(files.cert_file, files.key_file, directory / "ca.pem" if client_ca else None, client_required)


class ServingService(Serving):
    """The same with the real runtime behind it: a log in SQLite, an engine, admission and writer."""

    def __init__(self, directory, loop="uvloop", **limits):
        super().__init__(loop=loop, **limits)
        self._directory, self._given, self.admission = directory, limits, self

    async def _start(self):
        known = directory_file(self._directory / "identities.toml")
        settings = Settings(
            data_dir=self._directory, ingest={"port": 0, "plain_text_on_loopback": True}, auth={"file": known},
            log={"durability": "off"}, limits={"heartbeat_s": 3600, **self._given}, engine={"shards": 0},
        )  # fmt: skip
        self.service = Service(settings, app)
        await self.service.start()
        self.server = self.service.ingest
        return self.service.stop

    def state(self):
        """All that input may change: the log's end, the tables, the actors' states, what was counted."""
        place, admission, engine = self.service.core.writer.place, self.service.core.admission, self.service.engine
        rows = sorted(engine.table(totals).to_numpy().tolist())
        producers = [replace(row, connected=False) for row in self.service.producers()]
        counted = admission.frames, admission.signals, admission.pending, engine.statistics().accepted
        return place.sequence, place.position, producers, dict(self.service.names), rows, counted


def directory_file(file):
    """An identities file with those of `identities`."""
    lines = []
    for one in identities():
        lines += ["[[identity]]", f"name = {one.name!r}", f"read = {str(one.read).lower()}"]
        lines += [f"kinds = {sorted(one.kinds)}", f"producers = {list(one.producers)}"]
        lines += [f"token_sha256 = {[digest.hex() for digest in one.tokens_sha256]}"]
        lines += [f"certificate = {one.certificate!r}"] if one.certificate else []
    file.write_text("\n".join(lines))
    return file


@contextlib.contextmanager
def unchanged(serving):
    """Whatever happens inside, admission is as it was; sessions may come and go."""
    before = serving.on_loop(serving.admission.state)
    yield
    assert serving.on_loop(serving.admission.state) == before
