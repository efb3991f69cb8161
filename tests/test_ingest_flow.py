"""Acks, credit, backpressure, limits and ends of sessions on real sockets; over both event loops where it is cheap."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest

from bitactor.ingest.connection import MESSAGES_A_TURN
from bitactor.ingest.limits import Bucket, peer_of
from bitactor.ingest.server import Server
from bitactor.ingest.watch import Watched
from bitactor.protocol.errors import Code
from bitactor.protocol.messages import (
    Ack,
    Close,
    Error,
    Hello,
    Name,
    Outputs,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    Welcome,
)
from bitactor.signals import text_key
from tests.ingest_tools import READER, SECRET, MemoryAdmission, Peer, Serving, frame, identities, signals, unchanged


def wait(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_producer_is_welcomed_admitted_acknowledged_and_resumes(loop):
    with Serving(loop=loop) as running:
        with Peer(running.port) as peer:
            welcome = peer.hello()
            assert (welcome.producer, welcome.next, welcome.limit) == (text_key("p1"), 0, 1 << 20)
            assert [kind.name for kind in welcome.kinds] == ["trade", "quote"]
            for index in range(30):
                peer.send(frame(8192 if index % 3 else 10, sequence(index)))
            ack = peer.acked(sequence(30))
            assert (ack.limit, ack.durability, ack.position) == (ack.next + (1 << 20), 3, sequence(30))
        with Peer(running.port) as peer:  # its memory is lost: it goes on where the service is
            assert peer.hello().next == sequence(30)
            peer.send(frame(1, sequence(30)))
            peer.acked(sequence(30) + 1)
        data = b"".join(data for _, _, _, data in running.admission.taken)
        assert data == signals(sequence(30) + 1).tobytes()


def sequence(index):
    return sum(8192 if i % 3 else 10 for i in range(index))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_ten_producers_faster_than_a_slow_admission_stay_within_bounded_memory(loop):
    """Each sends 4 MiB; admission has room for 65,536 signals and takes 20,000 every 20 ms."""
    frames = 16
    admission = MemoryAdmission(room=65_536, acks="later")
    most = 0
    with Serving(admission, loop=loop, window_signals=200_000) as running:

        def produce(number):
            with Peer(running.port) as peer:
                peer.hello(producer=f"p{number}")
                for index in range(frames):
                    peer.send(frame(8192, index * 8192, producer=f"p{number}"))
                peer.acked(frames * 8192)
                peer.send(Close())
                while not isinstance(peer.receive(), Close):
                    pass
                done.append(number)

        done = []
        threads = [threading.Thread(target=produce, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        waited = 0
        while len(done) < 10:
            time.sleep(0.02)
            sizes = running.on_loop(lambda: (running.server.counters.receive_bytes, running.server.output_bytes))
            most = max(most, sum(sizes))
            waited = max(waited, running.on_loop(lambda: running.server.counters.paused["room"]))
            assert running.on_loop(lambda: admission.pending) <= 65_536
            running.on_loop(admission.settle, 20_000)
        for thread in threads:
            thread.join()
        assert waited >= 8  # nearly all of them were held back at once
        assert most <= 10 * (64 + 32 * 8192) + 10 * 4096
        for number in range(10):
            mine = b"".join(data for producer, _, _, data in admission.taken if producer == text_key(f"p{number}"))
            assert mine == signals(frames * 8192).tobytes()


def test_credit_is_held_while_there_is_no_room_and_given_when_there_is():
    admission = MemoryAdmission(room=10_000, acks="later")
    with Serving(admission, window_signals=8192) as running, Peer(running.port) as peer:
        assert peer.hello().limit == 8192
        peer.send(frame(8192))
        running.until(lambda: admission.pending == 8192)

        def ack_without_room():
            for holder in admission.holders.values():
                holder.on_ack(8192, 3, 8192)

        running.on_loop(ack_without_room)
        ack = peer.receive()
        assert (ack.next, ack.limit) == (8192, 8192)
        running.on_loop(admission.settle)
        assert peer.acked(8192).limit == 16_384 or peer.receive().limit == 16_384


def test_many_acks_of_one_turn_are_two_writes_at_most():
    admission = MemoryAdmission(acks="later")
    with Serving(admission) as running, Peer(running.port) as peer:
        peer.hello()
        peer.send(frame(100))
        running.until(lambda: admission.pending == 100)

        def burst():
            for following in range(1, 101):
                for holder in admission.holders.values():
                    holder.on_ack(following, 3, following)

        running.on_loop(burst)
        assert peer.receive().next == 1
        assert peer.receive().next == 100
        assert running.on_loop(lambda: running.server.counters.acks) == 2


def test_close_is_answered_after_the_last_ack_and_takes_nothing_more():
    admission = MemoryAdmission(acks="later")
    with Serving(admission) as running, Peer(running.port) as peer:
        peer.hello()
        peer.send(frame(5) + Close().encode() + frame(5, 5))
        peer.socket.shutdown(socket.SHUT_WR)
        running.until(lambda: admission.pending == 5)
        peer.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.receive()
        peer.socket.settimeout(10)
        running.on_loop(admission.settle)
        assert peer.receive().next == 5
        assert peer.receive() == Close()
        assert peer.receive() is None
        assert running.on_loop(lambda: admission.closed) == 1 and len(admission.taken) == 1


def test_stop_takes_nothing_more_acknowledges_what_was_admitted_and_says_goodbye():
    admission = MemoryAdmission(acks="later")
    with Serving(admission) as running, Peer(running.port) as peer, Peer(running.port) as silent:
        peer.hello()
        peer.send(frame(5))
        running.until(lambda: admission.pending == 5)
        running.stop()
        goodbye = silent.receive()
        assert goodbye.code == Code.SHUTTING_DOWN
        with pytest.raises(OSError, match="refused|reset"):
            Peer(running.port).hello()
        running.on_loop(admission.settle)
        assert isinstance(peer.receive(), Ack)
        assert peer.receive().code == Code.SHUTTING_DOWN
        assert peer.receive() is None


def test_a_newer_connection_of_a_producer_supersedes_the_older():
    with Serving() as running, Peer(running.port) as older, Peer(running.port) as newer:
        older.hello()
        older.send(frame(3))
        older.acked(3)
        assert newer.hello().next == 3
        assert older.error().code == Code.SUPERSEDED
        newer.send(frame(3, 3))
        newer.acked(6)


def test_pings_are_answered_and_quiet_peers_are_asked_and_then_closed():
    with Serving(idle_s=0.4, frame_s=0.2) as running, Peer(running.port) as peer:
        peer.hello()
        for nonce in range(4):  # longer than idle_s in all
            time.sleep(0.15)
            peer.send(Ping(nonce))
            assert peer.receive() == Pong(nonce)
        began = time.monotonic()
        assert peer.receive() == Ping(0)
        assert 0.15 < time.monotonic() - began < 0.35
        assert running.on_loop(lambda: running.server.counters.receive_bytes) == 0  # quiet peers hold no buffer
        peer.send(Pong(0))
        assert peer.receive() == Ping(0)
        assert peer.error().code == Code.IDLE_TIMEOUT


def test_a_peer_that_says_no_hello_in_time_is_closed():
    with Serving(handshake_s=0.3) as running, Peer(running.port) as peer:
        began = time.monotonic()
        assert peer.error().code == Code.HANDSHAKE_TIMEOUT
        assert 0.2 < time.monotonic() - began < 1
        assert running.refused == {"handshake_timeout": 1}


def test_a_peer_that_never_reads_is_not_read_either_and_then_closed():
    with Serving(frame_s=0.5, output_bytes_max=1 << 16) as running, Peer(running.port, buffer_bytes=4096) as peer:
        peer.hello()
        sent = 0
        peer.socket.settimeout(30)
        pings = b"".join(Ping(n).encode() for n in range(2000))
        refused = running.server.counters.refused
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20 and not refused[Code.SLOW_READER.name.lower()]:
                sent += peer.socket.send(pings)  # waits until it is refused; what comes after that is thrown away
        running.until(lambda: refused[Code.SLOW_READER.name.lower()])
        assert running.on_loop(lambda: running.server.output_bytes) <= (1 << 16) + (1 << 16)
        running.until(lambda: not running.server.counters.connections)
    assert sent < 64 << 20


def test_acks_that_are_not_read_become_one_and_signals_go_on_when_they_are():
    admission = MemoryAdmission()
    with Serving(admission, output_bytes_max=1 << 16) as running, Peer(running.port, buffer_bytes=4096) as peer:
        peer.hello()

        def blocked():
            for session in running.server._sessions:
                session.output(blocked=True)

        running.on_loop(blocked)
        running.on_loop(lambda: [holder.on_ack(n, 3, n) for n in range(50) for holder in admission.holders.values()])

        def drained():
            for session in running.server._sessions:
                session.output(blocked=False)

        running.on_loop(drained)
        assert peer.receive().next == 49
        peer.send(frame(60))
        assert peer.acked(60).next == 60


def test_connections_are_limited_in_all_and_for_each_peer():
    with Serving(connections_max=3, connections_per_peer_max=2) as running:
        with Peer(running.port) as first, Peer(running.port) as second, Peer(running.port) as third:
            assert isinstance(first.hello(), Welcome) and isinstance(second.hello("p2"), Welcome)
            error = third.error()
            assert error.code == Code.CONNECTIONS_FULL and "2 connections of 127.0.0.1 are open" in error.message
        running.until(lambda: not running.server.counters.connections)
        with Peer(running.port) as again:
            assert isinstance(again.hello(), Welcome)
        assert running.refused == {"connections_full": 1}


def test_a_rate_delays_reading_and_loses_nothing():
    with Serving(rate_signals_per_s=2000) as running, Peer(running.port) as peer, Peer(running.port) as other:
        peer.hello("p1")
        other.hello("p2")
        began = time.monotonic()
        for index in range(20):
            peer.send(frame(100, index * 100))
            other.send(frame(100, index * 100, producer="p2"))
        peer.acked(2000)
        other.acked(2000)
        assert 0.7 < time.monotonic() - began < 4  # 4,000 signals of one identity, 2,000 of them at once
        assert len(running.admission.taken) == 40


def test_a_bucket_gives_one_second_at_once_and_takes_debts():
    bucket = Bucket(10)
    now = 1000.0
    assert bucket.delay(now) <= 0
    bucket.take(10, now)
    assert bucket.delay(now) <= 0
    bucket.take(30, now)
    assert bucket.delay(now) == pytest.approx(3)
    assert bucket.delay(now + 3) == pytest.approx(0)


def test_one_peer_is_an_address_or_a_network_of_them():
    assert peer_of(("192.0.2.1", 5)) == "192.0.2.1" == peer_of(("::ffff:192.0.2.1", 5, 0, 0))
    assert peer_of(("2001:db8:1:2:3::4", 5, 0, 0)) == peer_of(("2001:db8:1:2::9", 6, 0, 0)) == "2001:db8:1:2::/64"
    assert peer_of(("fe80::1%eth0", 5, 0, 2)) == "fe80::/64"
    assert peer_of("") == peer_of(None) == ""


def test_both_address_families_are_listened_on():
    with Serving(host="::1") as running, socket.create_connection(("::1", running.port)) as connection:
        connection.sendall(b"x")
        assert connection.recv(100)


def test_a_port_that_is_taken_is_told_with_the_setting_to_change():
    with Serving() as running:

        async def start():
            await Server(MemoryAdmission(), Watched((), identities), tls=None, port=running.port).start()

        with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1 port {running.port}: .*\(--ingest-port\)"):
            asyncio.run(start())


def test_plain_text_is_for_loopback_only():
    async def start():
        server = Server(MemoryAdmission(), Watched((), identities), tls=None, host="0.0.0.0", port=0)
        await server.start()

    with pytest.raises(ValueError, match="plain text is for loopback addresses only, not 0.0.0.0: give certificates"):
        asyncio.run(start())


def test_outputs_are_written_until_the_peer_is_slow_and_go_on_when_it_reads():
    rows = bytes(48 * 4000)
    with Serving(output_bytes_max=1 << 16) as running, Peer(running.port, buffer_bytes=4096) as peer:
        peer.hello("", token=READER)
        peer.send(Subscribe(7, (1,)))
        running.until(lambda: running.admission.subscribed)
        (subscription,) = running.admission.subscribed
        written = 0

        def write():
            nonlocal written
            while subscription.write(Outputs(7, 0, rows).encode()):
                written += 1
            written += 1

        running.on_loop(write)
        assert running.on_loop(lambda: running.server.output_bytes) <= (1 << 16) + len(rows) + 100
        for _ in range(written):
            assert peer.receive().rows == rows
        running.until(lambda: subscription.resumed)
        peer.send(Unsubscribe(7))
        running.until(lambda: subscription.closed)
        peer.send(Subscribe(8, (1,), live=False))
        error = peer.receive()
        assert (error.code, error.fatal) == (Code.OUTPUT_GONE, False)
        peer.send(Subscribe(9, (1,)))
        running.until(lambda: len(running.admission.subscribed) == 2)
    assert running.admission.subscribed[1].closed


def test_a_subscription_of_the_same_number_is_refused():
    with Serving() as running, Peer(running.port) as peer:
        peer.hello("", token=READER)
        peer.send(Subscribe(7, (1,)).encode() + Subscribe(7, (1,)).encode())
        assert peer.error().code == Code.FIELD


def test_a_subscription_that_ends_while_it_begins_is_closed_and_its_number_is_free():
    with Serving() as running, Peer(running.port) as peer:
        peer.hello("", token=READER)
        peer.send(Subscribe(7, (1,)).encode() + Unsubscribe(7).encode() + Subscribe(7, (1,)).encode())
        running.until(lambda: len(running.admission.subscribed) == 2)
        running.until(lambda: [one.closed for one in running.admission.subscribed] == [True, False])


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_one_who_floods_gets_a_bounded_share_of_each_turn_of_the_loop(loop):
    turns = []
    with Serving(loop=loop) as running, Peer(running.port) as peer:
        peer.hello()

        def watch(before=0):
            turns.append(running.server.counters.messages - before)
            if running.server.counters.connections:
                running.loop.call_soon(watch, running.server.counters.messages)

        running.on_loop(watch, running.on_loop(lambda: running.server.counters.messages))
        flood = b"".join(Ping(n).encode() for n in range(20_000))
        sender = threading.Thread(target=peer.send, args=(flood,))
        sender.start()
        for n in range(20_000):
            assert peer.receive() == Pong(n)
        sender.join()
    assert sum(turns) == 20_000
    assert max(turns) <= 2 * MESSAGES_A_TURN  # the rest of one share and the whole of the next


def test_names_are_admitted_in_their_place_among_the_frames():
    with Serving() as running, Peer(running.port) as peer:
        peer.hello()
        peer.send(Name(text_key("AAPL"), "AAPL").encode() + frame(1))
        peer.acked(1)
        assert running.admission.names == {text_key("AAPL"): "AAPL"}


class Failing(MemoryAdmission):
    """Breaks where a test says."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def admit(self, producer, data, kinds):
        if self.where == "admit":
            raise RuntimeError("planted")
        return super().admit(producer, data, kinds)

    async def open_producer(self, *arguments):
        if self.where == "open":
            raise RuntimeError("planted")
        return await super().open_producer(*arguments)


@pytest.mark.parametrize("where", ["admit", "open"])
def test_a_failure_of_the_service_is_said_logged_and_ends_only_that_connection(where, caplog):
    with Serving(Failing(where)) as running, unchanged(running):
        with Peer(running.port) as peer:
            answer = peer.hello("" if where == "admit" else "p1", token=READER if where == "admit" else b"x")
        with Peer(running.port) as peer:
            answer = peer.hello()
            if where == "admit":
                running.on_loop(lambda: running.admission.next.clear() or running.admission.owner.clear())
                peer.send(frame(1))
                answer = peer.error()
            assert isinstance(answer, Error) and answer.code == Code.INTERNAL
        running.admission.where = ""
    assert "planted" in caplog.text


def test_a_connection_that_is_lost_while_it_opens_holds_nothing():
    class Slow(MemoryAdmission):
        async def open_producer(self, *arguments):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled = True
                raise

    admission = Slow()
    with Serving(admission) as running, Peer(running.port) as peer:
        peer.send(Hello("p1", token=SECRET))
        running.until(lambda: running.server.counters.authenticated)
        running.on_loop(lambda: [session.channel.abort() for session in running.server._sessions])
        running.until(lambda: running.server.counters.connections == 0)
        running.until(lambda: admission.cancelled)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_server_stops_although_a_peer_has_gone_that_very_moment(loop):
    with Serving(loop=loop) as running:
        peer = Peer(running.port)
        peer.hello()

        def gone_unseen():  # the loop has no turn between the peer's end and the goodbye
            peer.socket.close()  # so the goodbye is answered by a reset, before the output is ended
            running._stop.set()
            (session,) = running.server._sessions
            session.finish(Close())

        running.on_loop(gone_unseen)
