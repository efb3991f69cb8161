"""Exhaustion: connections, time, memory, names, keys, the disk. Whoever attacks gets a bound; others go on.

While an attack stands, an honest producer from another address is acknowledged; that is part of each case.
"""

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial import rawwire as wire
from bitactor.validation.adversarial.registry import NotRun, case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

ANYBODY: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"
KNOWN: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H"
PEER_MAX: Final = 48  # what the services of the suite are told
LATE_S: Final = 4.0 + 12.0  # their limit for a handshake or a message, and what a busy machine adds


def _tcp(site: "Site", source: str) -> socket.socket:
    return socket.create_connection(site.own.address, 10, (source, 0))


def _open(held: "list[socket.socket]") -> int:
    """How many of the connections the service has not closed."""
    still = 0
    for one in held:
        one.setblocking(False)
        try:
            still += one.recv(1) != b""
        except BlockingIOError:
            still += 1
        except OSError:
            pass
    return still


def _gone_within(held: "list[socket.socket]", seconds: float) -> float:
    begin = time.monotonic()
    while still := _open(held):
        expect(time.monotonic() - begin < seconds, f"{still} of {len(held)} connections are open after {seconds:g} s")
        time.sleep(0.1)
    return time.monotonic() - begin


@case(
    cwe=770, vector=ANYBODY, surface="ingest", short=True, precondition="48 connections from an address, 96 in all",
    steps="open 200 from one address; meanwhile an honest producer sends from another",
    expected="48 stand, the others are closed at once",
)  # fmt: skip
def connections_of_one_address(site: "Site") -> str:
    """More connections than one address may have."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(_tcp(site, "127.0.0.3")) for _ in range(200)]
        time.sleep(0.5)
        still = _open(held)
        expect(0 < still <= PEER_MAX, f"{still} connections of one address are open")
        site.witness.send()
    return f"{still} of 200 stand; the honest producer is acknowledged meanwhile"


@case(
    cwe=770, vector=ANYBODY, surface="ingest", precondition="as above; nobody of them says anything",
    steps="open 48 from each of three addresses, wait for the handshake's limit",
    expected="96 at most; all are closed in time, then everybody gets in",
)  # fmt: skip
def connections_in_all(site: "Site") -> str:
    """More connections than there may be in all."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(_tcp(site, f"127.0.0.{4 + at % 3}")) for at in range(144)]
        time.sleep(0.5)
        still = _open(held)
        expect(still <= 96, f"{still} connections are open")
        seconds = _gone_within(held, LATE_S)
    return f"{still} stood; the last was closed after {seconds:.1f} s"


@case(
    cwe=400, vector=ANYBODY, surface="ingest", precondition="the handshake may take 4 s",
    steps="begin 40 TLS handshakes and leave them half open",
    expected="all are closed in time; meanwhile others are served",
)  # fmt: skip
def half_open_handshakes(site: "Site") -> str:
    """Handshakes that stop in the middle."""
    before = site.own.resident_bytes()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(_tcp(site, "127.0.0.3")) for _ in range(40)]
        for one in held:
            one.sendall(b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03" + bytes(60))
        site.witness.send()
        grown = site.own.resident_bytes() - before
        seconds = _gone_within(held, LATE_S)
    expect(grown < 40 * (64 << 10), f"40 half handshakes took {grown >> 10} KiB")
    return f"all closed after {seconds:.1f} s; {max(0, grown) >> 10} KiB meanwhile"


@case(cwe=400, vector=ANYBODY, surface="ingest", precondition="hello may take 4 s from the connection on",
      steps="send hello a byte every 0.2 s", expected="handshake_timeout: bytes do not prolong it")  # fmt: skip
def hello_by_drops(site: "Site") -> str:
    """A hello that comes byte by byte."""
    return _by_drops(site, wire.hello("attacker-slow", site.tokens["attacker"]), "handshake_timeout", greet=False)


@case(cwe=400, vector=KNOWN, surface="ingest", short=True, precondition="a message may take 4 s from its first byte on",
      steps="send a frame of 8,192 signals a byte every 0.2 s", expected="frame_timeout")  # fmt: skip
def frame_by_drops(site: "Site") -> str:
    """A frame that comes byte by byte."""
    return _by_drops(site, b"", "frame_timeout", greet=True)


def _by_drops(site: "Site", data: bytes, code: str, *, greet: bool) -> str:
    with site.own.connect() as peer:
        if greet:
            site.join(peer, "slow")
            data = peer.data(wire.signal() * 8192)
        begin = time.monotonic()
        for byte in data:
            peer.send(bytes([byte]))
            found = peer.refusal(0.2)
            if found != "silence":
                break
            expect(time.monotonic() - begin < LATE_S, f"open after {LATE_S:g} s")
        else:
            found = "silence"
    expect(found == code, f"{found} instead of {code}")
    return f"{found} after {time.monotonic() - begin:.1f} s"


@case(cwe=613, vector=KNOWN, surface="ingest", precondition="a connection may be idle for 8 s",
      steps="say nothing after the welcome, not even pongs", expected="a ping, then idle_timeout")  # fmt: skip
def idle(site: "Site") -> str:
    """A connection that says nothing."""
    with site.own.connect() as peer:
        site.join(peer, "idle")
        begin = time.monotonic()
        pinged = False
        while True:
            answer = peer.reply(20)
            expect(answer is not None, "closed without a reason")
            if answer is None or answer.kind == wire.ERROR:
                break
            pinged |= answer.kind == wire.PING
    code = answer.code if answer else "closed"
    expect(code == "idle_timeout" and pinged, f"{code}, {'a ping' if pinged else 'no ping'} before")
    return f"a ping, then idle_timeout after {time.monotonic() - begin:.1f} s"


@case(
    cwe=789, vector=KNOWN, surface="ingest", precondition="welcome",
    steps="on 40 connections send the head of a frame of 8,192 signals and no more",
    expected="memory for one frame each at most; frame_timeout",
)  # fmt: skip
def frames_announced(site: "Site") -> str:
    """Frames that are announced and do not come."""
    before = site.own.resident_bytes()
    with contextlib.ExitStack() as stack:
        peers = []
        for at in range(40):
            peer = stack.enter_context(site.own.connect(source="127.0.0.3"))
            site.join(peer, f"announced-{at}")
            peer.send(peer.data(wire.signal() * 60, count=8192))
            peers.append(peer)
        site.witness.send()
        grown = site.own.resident_bytes() - before
        codes = {peer.refusal() for peer in peers}
    expect(codes == {"frame_timeout"}, f"{codes} instead of frame_timeout")
    expect(grown < 40 * (384 << 10), f"the service grew by {grown >> 20} MiB")
    return f"frame_timeout for all; the service grew by {max(0, grown) >> 10} KiB"


@case(
    cwe=400, vector=KNOWN, surface="ingest", short=True, precondition="64 KiB may wait for a peer",
    steps="send pings without end and read nothing; meanwhile an honest producer sends",
    expected="slow_reader; memory stays; the producer is acknowledged",
)  # fmt: skip
def never_reads_pongs(site: "Site") -> str:
    """A peer that asks and never reads the answers."""
    before, slow = site.own.resident_bytes(), _slow_readers(site)
    with site.own.connect(source="127.0.0.3") as peer:
        site.join(peer, "deaf")
        pings, ended = wire.ping() * 2000, False
        begin = time.monotonic()
        peer.socket.settimeout(0.5)
        while not ended and time.monotonic() - begin < 3 * LATE_S:
            try:
                peer.socket.send(pings)
            except TimeoutError:
                site.witness.send()
            except OSError:
                ended = True
        seconds = time.monotonic() - begin
        grown = site.own.resident_bytes() - before
        expect(ended, f"after {seconds:.0f} s its pings are still taken")
    expect(_slow_readers(site) > slow, "it was not ended as slow_reader")
    expect(grown < 32 << 20, f"the service grew by {grown >> 20} MiB")
    return f"slow_reader, ended after {seconds:.1f} s; the service grew by {max(0, grown) >> 10} KiB"


@case(
    cwe=400, vector=KNOWN, surface="ingest", precondition="as above; outputs are made all the time",
    steps="subscribe and read nothing",
    expected="the service keeps 64 KiB for it and then ends it with slow_reader",
)  # fmt: skip
def never_reads_outputs(site: "Site") -> str:
    """A subscriber that never reads."""
    before, slow = site.own.resident_bytes(), _slow_readers(site)
    with site.own.connect(source="127.0.0.3") as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.greet("", site.tokens["reader"])
        for id_ in range(1, 17):
            peer.send(wire.subscribe(id_))
        with site.own.connect() as sender:
            producer = site.join(sender, "flood")
            due = time.monotonic() + 2 * LATE_S
            ended = False
            while time.monotonic() < due and not ended:
                site.admit(sender, producer, *[(5_000, 1)] * 4000)
                ended = _slow_readers(site) > slow
        grown = site.own.resident_bytes() - before
    expect(ended, f"after {2 * LATE_S:g} s the subscriber is still there")
    expect(grown < 48 << 20, f"the service grew by {grown >> 20} MiB")
    return f"slow_reader; the service grew by {max(0, grown) >> 10} KiB"


def _slow_readers(site: "Site") -> float:
    """How many the service has ended as slow readers."""
    for line in site.own.admin.get("/metrics").body.splitlines():
        if line.startswith(b'bitactor_ingest_refused_total{reason="slow_reader"}'):
            return float(line.split()[1])
    return 0.0


@case(cwe=770, vector=KNOWN, surface="ingest", precondition="welcome as `reader`",
      steps="subscribe 17 times", expected="16 are taken, then error field")  # fmt: skip
def subscriptions(site: "Site") -> str:
    """More subscriptions than a connection may have."""
    with site.place.connect() as peer:
        peer.greet("", site.tokens["reader"])
        for id_ in range(17):
            peer.send(wire.subscribe(id_))
        code = peer.refusal()
    expect(code == "field", f"{code} instead of field")
    return "error field for the 17th"


@case(
    cwe=770, vector=KNOWN, surface="ingest", precondition="welcome",
    steps="4 connections send 20,000 small messages each; meanwhile an honest producer sends 5 times",
    expected="it is acknowledged all the time",
)  # fmt: skip
def tiny_messages(site: "Site") -> str:
    """A flood of tiny messages."""
    stop = threading.Event()

    def flood(at: int) -> None:
        with contextlib.suppress(OSError), site.own.connect(source="127.0.0.3") as peer:
            peer.greet(f"attacker-tiny-{at}", site.tokens["attacker"])
            for _ in range(100):
                peer.send(wire.message(wire.PONG, bytes(8)) * 200)
                if stop.is_set():
                    break

    threads = [threading.Thread(target=flood, args=(at,)) for at in range(4)]
    for at, thread in enumerate(threads):
        site.witness.joined(f"attacker-tiny-{at}")
        thread.start()
    worst = 0.0
    for _ in range(5):
        begin = time.monotonic()
        site.witness.send()
        worst = max(worst, time.monotonic() - begin)
    stop.set()
    for thread in threads:
        thread.join()
    return f"acknowledged 5 times, within {worst:.2f} s"


@case(
    cwe=770, vector=KNOWN, surface="ingest", precondition="a window of 8,192 signals",
    steps="in one write, a frame up to the limit and a signal past it, until it comes before the ack",
    expected="credit_exceeded; the frame counts, the signal does not",
)  # fmt: skip
def credit(site: "Site") -> str:
    """Signals past the credit."""
    served, witness = site.tight, site.witness_of("tight")
    producer, frame = "honest-credit", wire.signal(7, 1) * 8192
    for attempt in range(1, 20):
        with served.connect() as peer:
            peer.greet(producer, site.tokens["honest"])
            witness.joined(producer)
            start, limit = peer.welcome.next, peer.welcome.limit
            expect(limit - start == 8192, f"a limit of {limit} at {start}")
            peer.send(peer.data(frame) + peer.data(wire.signal(9, 1), sequence=limit))
            answer = peer.until(wire.ACK)
            while answer is not None and answer.kind == wire.ACK and peer.acked < limit + 1:
                answer = peer.until(wire.ACK)
        witness.sent(producer, *[(7, 1)] * 8192)
        if answer is not None and answer.kind == wire.ERROR:
            expect(answer.code == "credit_exceeded", f"{answer.code} instead of credit_exceeded")
            return f"credit_exceeded at attempt {attempt}"
        witness.sent(producer, (9, 1))  # the ack came first, and raised the limit
    expect(False, "an ack came before the second frame 19 times")
    return ""


@case(cwe=770, vector=KNOWN, surface="ingest", precondition="a service that knows 8 names at most",
      steps="send 9 names", expected="names_full; what was known stays")  # fmt: skip
def names(site: "Site") -> str:
    """More names than there is room for."""
    served, witness = site.tight, site.witness_of("tight")
    with served.connect() as peer:
        peer.greet("attacker-names", site.tokens["attacker"])
        witness.joined("attacker-names")
        room = 8 - witness.names
        for at in range(room + 1):
            name = f"name-{witness.names + at}"
            peer.send(wire.message(wire.NAME, struct.pack(">Q", wire.text_key(name)) + wire.text(name)))
        code = peer.refusal()
    witness.names += room
    expect(code == "names_full", f"{code} instead of names_full")
    return "names_full"


@case(cwe=770, vector=KNOWN, surface="ingest", precondition="a service that knows 8 producers at most",
      steps="open 9", expected="producers_full; those that are known go on")  # fmt: skip
def producers(site: "Site") -> str:
    """More producers than there is room for."""
    served, witness = site.tight, site.witness_of("tight")
    witness.send()
    code = ""
    for at in range(9):
        with served.connect() as peer:
            answer = peer.greet(f"attacker-{at}", site.tokens["attacker"])
            if answer.kind == wire.ERROR:
                code = answer.code
                break
            witness.joined(f"attacker-{at}")
    expect(code == "producers_full", f"{code or 'all were taken'} instead of producers_full")
    return f"producers_full for the {at + 1}th"


@case(
    cwe=400, vector=KNOWN, surface="ingest", precondition="a service whose log may take 4 MiB",
    steps="send 13 MB of signals, as fast as they are acknowledged",
    expected="the log stays within 4 MiB, by snapshots or by log_full; nothing acknowledged is lost",
)  # fmt: skip
def log_full(site: "Site") -> str:
    """A log that is filled up."""
    served = site.serve(
        "small", ("--log-size-bytes-max", "4MiB", "--log-durability", "normal", "--snapshot-every-s", "3600")
    )
    witness = site.witness_of("small")
    code, sent, producer = "", 0, "honest-filler"
    with served.connect() as peer:
        answer = peer.greet(producer, site.tokens["honest"])
        expect(answer.kind == wire.WELCOME, f"refused: {answer}")
        witness.joined(producer)
        try:
            for _ in range(100):
                peer.admit(wire.signal(7, 1) * 4096)
                witness.sent(producer, *[(7, 1)] * 4096)
                sent += 4096
        except EOFError as error:
            code = str(error)
    expect(code == "" or "log_full" in code, f"{sent} signals were taken, and then {code!r}")
    size = served.admin.get("/api/v1/log").json()["log"]["size_bytes"]
    expect(size <= 4 << 20, f"the log has {size} bytes")
    if code:
        answer_ = served.admin.post("/api/v1/snapshot", {})
        expect(answer_.status == 200, f"snapshot: {answer_.status} {answer_.body[:200]!r}")
    due = time.monotonic() + 30
    while served.admin.get("/readyz", token="").status != 200 and time.monotonic() < due:
        time.sleep(0.1)
    return f"{sent} signals, then {code or 'no refusal: snapshots made room'}; the log has {size >> 10} KiB"


@case(
    cwe=770, vector=KNOWN, surface="ingest", precondition="an actor with room for 6,400 keys",
    steps="send 20,000 keys to it",
    expected="the keys over its room are dropped and counted as key_cap; memory is bounded",
)  # fmt: skip
def keys(site: "Site") -> str:
    """More keys than an actor may have."""
    served, witness = site.plain, site.witness_of("plain")
    producer = "honest-keys"
    with served.connect() as peer:
        peer.greet(producer, site.tokens["honest"])
        witness.joined(producer)
        for start in range(0, 20_000, 4000):
            peer.admit(b"".join(wire.signal(key, 1, kind=wire.QUOTE) for key in range(start, start + 4000)))
        witness.producers[producer] = witness.producers.get(producer, 0) + 20_000
    engine = served.admin.get("/api/v1/statistics").json()["statistics"]["engine"]
    quotes = next(actor for actor in engine["actors"] if actor["name"] == "quotes")
    dropped = engine["dropped"]["key_cap"]
    expect(quotes["keys"] <= 6400 and dropped >= 20_000 - 6400, f"{quotes['keys']} keys, {dropped} dropped")
    witness.dropped = dropped
    return f"{quotes['keys']} keys, {dropped} signals dropped as key_cap"


@case(
    cwe=407, vector=KNOWN, surface="ingest",
    precondition="an actor's table, whose slots depend on a secret of the process",
    steps=(
        "send 8,192 keys of one partition that agree in their low 32 bits, and 8,192 that do not, three "
        "times in turn"
    ),
    expected="they cost no more than 20 times as much a signal",
)  # fmt: skip
def keys_that_collide(site: "Site") -> str:
    """Keys chosen to collide."""
    served, witness = site.plain, site.witness_of("plain")
    producer = "honest-colliding"
    chosen: list[int] = []
    at = 1
    while len(chosen) < 8192:
        key = at << 32 | 0xABCD
        if _partition(key) == 7:
            chosen.append(key)
        at += 1
    costs: dict[bool, float] = {True: 0.0, False: 0.0}
    with served.connect() as peer:
        peer.greet(producer, site.tokens["honest"])
        witness.joined(producer)
        for turn in range(3):
            for colliding in (True, False):
                given = chosen if colliding else [site.random.getrandbits(60) | 1 << 61 for _ in chosen]
                before = _busy(served.admin.get("/api/v1/statistics").json())
                peer.admit(b"".join(wire.signal(key, 1) for key in given))
                peer.admit(b"".join(wire.signal(key, 1) for key in given))
                costs[colliding] += _busy(served.admin.get("/api/v1/statistics").json()) - before
                witness.sent(producer, *[(key, 1) for key in given] * 2)
            del turn
    ratio = costs[True] / max(costs[False], 1e-9)
    expect(ratio < 20, f"colliding keys cost {ratio:.1f} times as much")
    witness.exact = False  # more keys than the table's answer has rows
    return f"colliding keys cost {ratio:.2f} times as much"


def _busy(body: "object") -> float:
    shards = body["statistics"]["engine"]["shards"]  # type: ignore[index]
    return float(sum(shard["dispatch_seconds"] for shard in shards))


def _partition(key: int) -> int:
    """The finaliser of MurmurHash3, modulo 64."""
    mask = (1 << 64) - 1
    key = (key ^ key >> 33) * 0xFF51AFD7ED558CCD & mask
    key = (key ^ key >> 33) * 0xC4CEB9FE1A85EC53 & mask
    return (key ^ key >> 33) % 64


@case(
    cwe=754, vector=KNOWN, surface="files",
    precondition="a service whose files may not grow past 1 MiB (RLIMIT_FSIZE): writes fail as on a full disk",
    steps="send until a write fails; start again without the limit",
    expected="nothing more is acknowledged, the process ends, all acknowledged is there again",
)  # fmt: skip
def write_fails(site: "Site") -> str:
    """A disk that takes no more."""
    import os
    import resource

    from bitactor.validation.adversarial.service import Served

    if not hasattr(resource, "prlimit"):
        raise NotRun("this system has no prlimit")
    served = site.serve("full", ("--log-durability", "normal", "--snapshot-every-s", "3600"))
    witness = site.witness_of("full")
    assert isinstance(served, Served)
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    producer, sent = "honest-disk", 0
    said = ""
    try:
        with served.connect() as peer:
            peer.greet(producer, site.tokens["honest"])
            witness.joined(producer)
            for _ in range(400):
                peer.admit(wire.signal(7, 1) * 512)
                witness.sent(producer, *[(7, 1)] * 512)
                sent += 512
    except (EOFError, OSError) as error:
        said = str(error)
    expect(said != "", f"{sent} signals were acknowledged with 1 MiB of file")
    assert served.process is not None
    status = served.process.wait(60)
    expect(status not in {0, -11}, f"it ended with status {status}")
    served.start()
    with served.connect() as peer:  # of what was not acknowledged, some may be there
        peer.greet(producer, site.tokens["honest"])
        more = peer.welcome.next - witness.producers[producer]
    expect(0 <= more <= 512, f"{more} signals more than were acknowledged")
    witness.sent(producer, *[(7, 1)] * more)
    del os
    return f"{sent} acknowledged, then {said[:60]!r}; status {status}; all of them there again"
