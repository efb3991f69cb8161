"""Replay and forgery of sequences: what was sent once is sent again, changed, out of order, or far ahead."""

from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial import rawwire as wire
from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

TWICE: Final = "AV:N/AC:H/PR:L/UI:N/S:U/C:N/I:H/A:N"
FORGES: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:H/A:N"
MAXIMUM: Final = (1 << 64) - 1


@case(cwe=294, vector=TWICE, surface="ingest", remote=True, short=True, precondition="a frame that was acknowledged",
      steps="send the same bytes 20 times more", expected="acknowledged again, and counted once")  # fmt: skip
def same_frame_again(site: "Site") -> str:
    """The same frame again, on the same connection."""
    with site.place.connect() as peer:
        producer = site.join(peer, "again")
        frame = peer.data(site.signals((7, 1), (8, 2)))
        site.admit(peer, producer, (7, 1), (8, 2))
        peer.send(frame * 20)
        site.admit(peer, producer, (9, 3))
    return "20 copies acknowledged, none counted"


@case(cwe=294, vector=TWICE, surface="ingest", remote=True, precondition="as above",
      steps="connect again and send the same bytes", expected="dropped as duplicates")  # fmt: skip
def same_frame_later(site: "Site") -> str:
    """The same frame on a later connection."""
    with site.place.connect() as peer:
        producer = site.join(peer, "later")
        frame = peer.data(site.signals((7, 1)))
        site.admit(peer, producer, (7, 1))
    with site.place.connect() as peer:
        site.join(peer, "later")
        peer.send(frame)
        site.admit(peer, producer, (8, 1))
    return "the old frame changes nothing, the new one counts"


@case(
    cwe=294, vector=TWICE, surface="ingest", short=True,
    precondition="a frame that was acknowledged; then kill -9 and a new start", steps="send the same bytes",
    expected="dropped as duplicates",
)  # fmt: skip
def same_frame_after_a_crash(site: "Site") -> str:
    """The same frame after the service was killed and started again."""
    served = site.own
    with served.connect() as peer:
        producer = site.join(peer, "crash")
        frame = peer.data(site.signals((7, 1)))
        site.admit(peer, producer, (7, 1))
    served.kill()
    served = site.own
    with served.connect() as peer:
        site.join(peer, "crash")
        peer.send(frame)
        site.admit(peer, producer, (8, 1))
    return "the old frame changes nothing, the new one counts"


@case(
    cwe=294, vector=FORGES, surface="ingest", remote=True,
    precondition="a frame of another producer, as a listener would have it",
    steps="send it on a connection of one's own", expected="producer_forbidden",
)  # fmt: skip
def frame_of_another_producer(site: "Site") -> str:
    """A captured frame of another producer."""
    with site.place.connect() as peer:
        site.join(peer, "captured")
        frame = peer.data(site.signals((7, 1)))
    with site.place.connect() as peer:
        site.join(peer, "captor")
        peer.send(frame)
        code = peer.refusal()
    expect(code == "producer_forbidden", f"{code} instead of producer_forbidden")
    return "producer_forbidden"


@case(
    cwe=294, vector=FORGES, surface="ingest", remote=True, short=True,
    precondition="two signals that were acknowledged",
    steps="send a frame that repeats them with other values and adds one", expected="only the added one counts",
)  # fmt: skip
def overlap_with_other_content(site: "Site") -> str:
    """An overlap that would rewrite what was acknowledged."""
    with site.place.connect() as peer:
        producer = site.join(peer, "overlap")
        site.admit(peer, producer, (7, 1), (8, 2))
        start = peer.next - 2
        peer.send(peer.data(site.signals((7, 1 << 50), (8, 1 << 50), (9, 3)), sequence=start))
        peer.next += 1
        site.witness.sent(producer, (9, 3))
        site.admit(peer, producer, (7, 1))
    return "the changed part is dropped, the added signal counts"


@case(
    cwe=863, vector=FORGES, surface="ingest", precondition="as above; `attacker` may not send quotes",
    steps="send a frame whose repeated part holds a quote", expected="kind_forbidden: all of a frame is looked at",
)  # fmt: skip
def overlap_with_a_forbidden_kind(site: "Site") -> str:
    """A forbidden kind in the part of a frame that is known already."""
    with site.place.connect() as peer:
        producer = site.join(peer, "hidden")
        site.admit(peer, producer, (7, 1))
        peer.send(peer.data(wire.signal(kind=wire.QUOTE) + wire.signal(9, 3), sequence=peer.next - 1))
        code = peer.refusal()
    expect(code == "kind_forbidden", f"{code} instead of kind_forbidden")
    return "kind_forbidden"


@case(cwe=841, vector=FORGES, surface="ingest", remote=True, short=True, precondition="welcome; the next sequence is n",
      steps="send a frame of sequence n + 1", expected="sequence_gap; nothing is taken; n stays the next")  # fmt: skip
def gap_of_one(site: "Site") -> str:
    """A gap of one signal."""
    with site.place.connect() as peer:
        site.join(peer, "gap")
        before = peer.welcome.next
        peer.send(peer.data(site.signals((7, 1)), sequence=before + 1))
        code = peer.refusal()
    expect(code == "sequence_gap", f"{code} instead of sequence_gap")
    with site.place.connect() as peer:
        site.join(peer, "gap")
        expect(peer.welcome.next == before, f"next was {before} and is {peer.welcome.next}")
    return "sequence_gap, next unchanged"


@case(
    cwe=190, vector=FORGES, surface="ingest", remote=True, precondition="welcome",
    steps="send a frame whose sequence and count end at 2**64 - 1 exactly, and one at 2**63",
    expected="sequence_gap or credit_exceeded",
)  # fmt: skip
def gap_to_the_end(site: "Site") -> str:
    """A sequence as far ahead as there is."""
    code = ""
    for sequence in (MAXIMUM - 1, 1 << 63):
        with site.place.connect() as peer:
            site.join(peer, "far")
            peer.send(peer.data(site.signals((7, 1)), sequence=sequence))
            code = peer.refusal()
        expect(code in {"sequence_gap", "credit_exceeded"}, f"{sequence}: {code}")
    return code


@case(cwe=190, vector=FORGES, surface="ingest", remote=True, precondition="welcome; the next sequence is n > 0",
      steps="send a frame of 8,192 signals at sequence 0, of which n are known, past the limit or not",
      expected="exactly the signals from n on are taken")  # fmt: skip
def long_overlap(site: "Site") -> str:
    """A frame that is mostly known."""
    with site.place.connect() as peer:
        producer = site.join(peer, "long")
        known = peer.welcome.next
        if known == 0:
            site.admit(peer, producer, *[(7, 1)] * 10)
            known = 10
        peer.send(peer.data(site.signals(*[(7, 1)] * 8192), sequence=0 if known < 8192 else known - 10))
        new = max(0, 8192 - known) if known < 8192 else 8182
        peer.next = known + new
        while peer.acked < peer.next:
            answer = peer.until(wire.ACK)
            expect(answer is not None and answer.kind == wire.ACK, f"answered with {answer}")
    site.witness.sent(producer, *[(7, 1)] * new)
    return f"{new} of 8,192 were new"


@case(
    cwe=362, vector=TWICE, surface="ingest", remote=True,
    precondition="one producer, eight connections that take it from each other",
    steps="each sends the same stream from its welcome on, as fast as it can", expected="every signal counts once",
)  # fmt: skip
def eight_senders_of_one_stream(site: "Site") -> str:
    """Eight connections that send the same stream of the same producer."""
    import threading

    count, attempts = 400, [0]
    stream = [(100 + at % 7, at) for at in range(count)]
    with site.place.connect() as peer:
        producer = site.join(peer, "race")
        base = peer.welcome.next
    failures: list[str] = []

    def send() -> None:
        for _ in range(400):
            with site.place.connect() as peer:
                attempts[0] += 1
                if peer.greet(producer, site.tokens["attacker"]).kind != wire.WELCOME:
                    continue
                at = peer.welcome.next - base
                if at >= count:
                    return
                for start in range(at, min(at + 60, count), 10):
                    part = stream[start : start + 10]
                    peer.send(peer.data(site.signals(*part), sequence=base + start))
                peer.refusal(0.02)

    def guarded() -> None:
        try:
            send()
        except (EOFError, OSError) as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=guarded) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with site.place.connect() as peer:
        site.join(peer, "race")
        at = peer.welcome.next - base
        for start in range(at, count, 10):
            peer.admit(site.signals(*stream[start : start + 10]))
    site.witness.sent(producer, *stream)
    return f"{attempts[0]} connections, {len(failures)} cut; every signal once"
