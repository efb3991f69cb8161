"""A small service for tests of clients: real sockets and TLS, the rules of docs/protocol.md, state in memory.

One thread for each connection. `signals` of a producer are what it sent, each once, in order. Knobs are attributes.
"""

import contextlib
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

import numpy as np

import bitactor as ba
from bitactor.protocol import messages as m
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import frame_header
from bitactor.schema import Kind

KINDS = (Kind("trade", 1, "f8", "u4"), Kind("count", 2, "i8", "i4"), Kind("alert", 3, "f8", "u4"))


@dataclass
class Stream:
    """What a producer has sent."""

    epoch: int = 1
    next: int = 0
    acked: int = 0  # what welcome says: lower than next when acks were lost, so that duplicates come
    parts: list = field(default_factory=list)
    duplicates: int = 0

    @property
    def signals(self):
        return np.concatenate(self.parts) if self.parts else np.zeros(0, ba.SIGNAL_DTYPE)


class ReferenceServer:
    """Listens on a free port of 127.0.0.1 from construction to close()."""

    def __init__(self, tls=None):
        self.window = 1 << 20
        self.token = b""
        self.acking = threading.Event()  # cleared: acks are held back
        self.acking.set()
        self.drop_after_frames = None  # close the connection, unannounced, after so many
        self.refuse = None  # a ProtocolError for the next hello or frame
        self.frame_seconds = 0.0
        self.streams = {}
        self.names = {}
        self.traces = []
        self.events = []  # (what, detail): order of names and frames
        self.outputs = None  # what a subscriber gets, an array of OUTPUT_DTYPE
        self.connections = 0
        self.frames = 0
        self.pings = 0
        self._lock = threading.Lock()
        self._tls = tls
        self._open = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self):
        self._listener.close()
        self.drop_all()

    def drop_all(self):
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._connection, args=(sock,), daemon=True).start()

    def _connection(self, sock):
        self._open.add(sock)
        try:
            if self._tls is not None:
                raw, sock = sock, self._tls.wrap_socket(sock, server_side=True)
                self._open.add(sock)
                self._open.discard(raw)
            self._serve(sock)
        except (OSError, ssl.SSLError):
            pass
        except ProtocolError as error:
            with contextlib.suppress(OSError):
                sock.sendall(m.Error.of(error).encode())
        finally:
            self._open.discard(sock)
            sock.close()

    def _messages(self, sock):
        data = bytearray()
        types = m.BEFORE_WELCOME
        while received := sock.recv(1 << 16):
            data += received
            while (length := m.message_length(memoryview(data)[:24], types)) and length <= len(data):
                message, data = bytes(data[:length]), data[length:]
                yield message
                types = m.FROM_CLIENT

    def _serve(self, sock):
        stream, frames, limit = None, 0, 0
        for data in self._messages(sock):
            if data[5] == m.Type.DATA:
                frames += 1
                self.frames += 1
                time.sleep(self.frame_seconds)
                self._raise_refusal()
                if sum(frame_header(data)[2:]) > limit:
                    raise ProtocolError(Code.CREDIT_EXCEEDED, f"past {limit}")
                self._take(stream, data)
                if self.drop_after_frames is not None and frames >= self.drop_after_frames:
                    self.drop_after_frames = None
                    return
                self.acking.wait()
                stream.acked = stream.next
                limit = stream.acked + self.window
                sock.sendall(m.Ack(stream.acked, limit, 3, stream.acked).encode())
                continue
            match m.decode_message(data):
                case m.Hello() as hello:
                    self._raise_refusal()
                    if hello.token != self.token:
                        raise ProtocolError(Code.AUTH_FAILED, "no identity has this token")
                    stream = self.streams.setdefault(hello.producer, Stream())
                    if hello.takeover:
                        stream.epoch += 1
                    elif hello.epoch not in (0, stream.epoch):
                        raise ProtocolError(Code.FENCED, f"epoch {stream.epoch} began")
                    limit = stream.acked + self.window
                    number = ba.text_key(hello.producer) if hello.producer else 0
                    sock.sendall(
                        m.Welcome(
                            *(number, stream.epoch, stream.acked, limit, 3, stream.acked),
                            *("reference", "ab" * 32, KINDS, "reference"),
                        ).encode()
                    )
                case m.Name() as name:
                    self.names[name.key] = name.text
                    self.events.append(("name", name.text))
                case m.Ping(nonce):
                    self.pings += 1
                    sock.sendall(m.Pong(nonce).encode())
                case m.Subscribe() as asked:
                    self._publish(sock, asked)
                case m.Close():
                    self.events.append(("close", None))
                    return
        return

    def _raise_refusal(self):
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            raise error

    def _take(self, stream, data):
        frame = ba.decode_frame(data)
        with self._lock:
            if frame.epoch != stream.epoch:
                raise ProtocolError(Code.FENCED, f"epoch {stream.epoch} began")
            if frame.sequence > stream.next:
                raise ProtocolError(Code.SEQUENCE_GAP, f"{frame.sequence} after {stream.next}")
            skip = min(stream.next - frame.sequence, len(frame.signals))
            stream.duplicates += skip
            stream.parts.append(frame.signals[skip:])
            stream.next += len(frame.signals) - skip
            self.events.append(("frame", len(frame.signals)))
            if frame.trace != bytes(24):
                self.traces.append(frame.trace)

    def _publish(self, sock, asked):
        rows = self.outputs
        rows = rows[np.isin(rows["kind"], asked.kinds)]
        if not asked.live:
            at = np.array([(p, i) >= (asked.from_position, asked.from_index) for p, i in rows[["position", "index"]]])
            rows = rows[at.astype(bool)]
        wire = rows.astype(np.dtype([(name, rows.dtype[name].newbyteorder(">")) for name in rows.dtype.names]))
        for first in range(0, len(wire), 100):
            sock.sendall(m.Outputs(asked.id, 0, wire[first : first + 100].tobytes()).encode())
