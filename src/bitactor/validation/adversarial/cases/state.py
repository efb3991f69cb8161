"""States of a connection and of a producer: things said at the wrong time, twice, or by who has been replaced."""

import struct
from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial import rawwire as wire
from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

FORGES: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:H/A:N"
STOPS: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H"


@case(cwe=841, vector=FORGES, surface="ingest", remote=True, precondition="welcome",
      steps="send close, then a frame", expected="the close is answered; the frame is not taken")  # fmt: skip
def data_after_close(site: "Site") -> str:
    """Data after one's own goodbye."""
    with site.place.connect() as peer:
        site.join(peer, "closed")
        peer.send(wire.message(wire.CLOSE, bytes(4)) + peer.data(site.signals((7, 1))))
        answer = peer.until(wire.CLOSE)
        expect(answer is not None and answer.kind == wire.CLOSE, f"close was answered with {answer}")
    return "closed, nothing taken"


@case(
    cwe=362, vector=FORGES, surface="ingest", remote=True, precondition="one token",
    steps="send hello and, without waiting for the answer, two frames",
    expected="they are taken in their order, or refused; once each",
)  # fmt: skip
def data_behind_hello(site: "Site") -> str:
    """Frames right behind hello, before the welcome."""
    producer = site.prefix + "eager"
    with site.place.connect() as peer:
        number = wire.text_key(producer)
        first = wire.frame(site.signals((7, 1)), producer=number, sequence=0)
        peer.send(
            wire.hello(producer, site.tokens["attacker"])
            + first
            + wire.frame(site.signals((7, 2)), producer=number, sequence=1)
        )
        answer = peer.until(wire.WELCOME)
        expect(answer is not None and answer.kind == wire.WELCOME, f"answered with {answer}")
        site.witness.joined(producer)
        while peer.acked < 2:
            answer = peer.until(wire.ACK)
            expect(answer is not None and answer.kind == wire.ACK, f"answered with {answer}")
    site.witness.sent(producer, (7, 1), (7, 2))
    return "welcome, then both acknowledged"


@case(cwe=20, vector=STOPS, surface="ingest", remote=True, precondition="welcome",
      steps="send pongs, an unsubscribe of an unknown id", expected="ignored; the connection goes on")  # fmt: skip
def answers_to_nothing(site: "Site") -> str:
    """Answers to what was never asked."""
    with site.place.connect() as peer:
        producer = site.join(peer, "answers")
        peer.send(wire.message(wire.PONG, bytes(8)) * 20 + wire.message(wire.UNSUBSCRIBE, struct.pack(">I", 77)))
        site.admit(peer, producer, (7, 1))
    return "the connection goes on"


@case(cwe=694, vector=STOPS, surface="ingest", precondition="welcome as `honest`, who may read",
      steps="subscribe twice with the same id", expected="error field")  # fmt: skip
def subscription_twice(site: "Site") -> str:
    """Two subscriptions of one id."""
    with site.place.connect() as peer:
        peer.greet("", site.tokens["reader"])
        peer.send(wire.subscribe(5) + wire.subscribe(5))
        code = peer.refusal()
    expect(code == "field", f"{code} instead of field")
    return "error field"


@case(cwe=190, vector=STOPS, surface="ingest", precondition="welcome as `reader`",
      steps="subscribe from position 2**64 - 1 and index 2**64 - 1; let signals be sent; ask for a pong",
      expected="waits for outputs that never come, or is refused; serves on")  # fmt: skip
def subscription_from_the_end_of_time(site: "Site") -> str:
    """A subscription from the largest position."""
    with site.place.connect() as peer:
        peer.greet("", site.tokens["reader"])
        peer.send(wire.subscribe(1, live=False, start=((1 << 64) - 1, (1 << 64) - 1)))
        site.witness.send()
        peer.send(wire.ping(3))
        answer = peer.until(wire.PONG, wire.OUTPUTS)
        expect(answer is not None and answer.kind != wire.OUTPUTS, f"answered with {answer}")
    return "no outputs, a pong" if answer and answer.kind == wire.PONG else f"error {answer.code if answer else ''}"


@case(
    cwe=129, vector=STOPS, surface="ingest", precondition="a service that keeps 64 outputs",
    steps="subscribe from position 0 when more than that were made", expected="output_gone; the connection goes on",
)  # fmt: skip
def subscription_to_what_is_gone(site: "Site") -> str:
    """A subscription to outputs that are no longer kept."""
    served = site.tight
    for _ in range(3):
        site.witness_of("tight").send()
    with served.connect() as peer:
        peer.greet("", site.tokens["reader"])
        peer.send(wire.subscribe(1, live=False))
        code = peer.refusal()
        expect(code == "output_gone", f"{code} instead of output_gone")
        peer.send(wire.ping(3))
        answer = peer.until(wire.PONG)
        expect(answer is not None and answer.kind == wire.PONG, f"then {answer}")
    return "output_gone, then a pong"


@case(
    cwe=129, vector=STOPS, surface="ingest", precondition="welcome as `reader`",
    steps="subscribe to a kind that the app does not declare, and to kind 65,535", expected="signal_kind",
)  # fmt: skip
def subscription_to_unknown_kinds(site: "Site") -> str:
    """A subscription to kinds that there are not."""
    for kind in (999, 65535):
        with site.place.connect() as peer:
            peer.greet("", site.tokens["reader"])
            peer.send(wire.subscribe(1, kinds=(wire.HEARD, kind)))
            code = peer.refusal()
        expect(code == "signal_kind", f"{code} instead of signal_kind")
    return "error signal_kind"


@case(cwe=362, vector=FORGES, surface="ingest", remote=True, short=True, precondition="two connections of one producer",
      steps="open the second; send a frame on the first", expected="superseded; only the second sends")  # fmt: skip
def superseded_goes_on(site: "Site") -> str:
    """A connection that was replaced goes on sending."""
    with site.place.connect() as first, site.place.connect() as second:
        producer = site.join(first, "two")
        site.join(second, "two")
        first.send(first.data(site.signals((7, 1 << 50))))
        code = first.refusal()
        expect(code == "superseded", f"{code} instead of superseded")
        site.admit(second, producer, (7, 1))
    return "superseded; the newer connection's signal is there"


@case(
    cwe=362, vector=FORGES, surface="ingest", remote=True, precondition="a producer that was taken over",
    steps="the former connection sends; then says hello with its epoch; then with a future one",
    expected="fenced each time",
)  # fmt: skip
def fenced_goes_on(site: "Site") -> str:
    """Who was taken over goes on."""
    with site.place.connect() as first, site.place.connect() as second:
        producer = site.join(first, "fenced")
        site.join(second, "fenced", flags=1)
        first.send(first.data(site.signals((7, 1 << 50))))
        code = first.refusal()
        expect(code == "fenced", f"{code} instead of fenced")
        expect(second.welcome.epoch == first.welcome.epoch + 1, f"epochs {first.welcome.epoch}, {second.welcome.epoch}")
        for epoch in (first.welcome.epoch, second.welcome.epoch + 1, 0xFFFFFFFF):
            with site.place.connect() as again:
                again.send(wire.hello(producer, site.tokens["attacker"], epoch=epoch))
                code = again.refusal()
            expect(code == "fenced", f"hello with epoch {epoch}: {code} instead of fenced")
        site.admit(second, producer, (7, 1))
    return "fenced; the new epoch's signal is there"


@case(cwe=294, vector=FORGES, surface="ingest", remote=True, short=True, precondition="welcome in epoch n",
      steps="send frames of epoch n - 1 and n + 1", expected="fenced for both; nothing is taken")  # fmt: skip
def frame_of_another_epoch(site: "Site") -> str:
    """A frame of another epoch."""
    for step in (-1, 1):
        with site.place.connect() as peer:
            site.join(peer, "epoch")
            peer.send(peer.data(site.signals((7, 1)), epoch=peer.welcome.epoch + step))
            code = peer.refusal()
        expect(code == "fenced", f"epoch {peer.welcome.epoch} {step:+}: {code} instead of fenced")
    return "fenced"


@case(
    cwe=404, vector=STOPS, surface="ingest", remote=True, precondition="welcome, a frame sent",
    steps="reset TCP before the acknowledgement, 100 times",
    expected="each frame is taken once, or not at all; next says which",
)  # fmt: skip
def resets_before_the_ack(site: "Site") -> str:
    """TCP resets between a frame and its acknowledgement."""
    taken, signals = 0, 0
    producer = ""
    for _ in range(100):
        with site.place.connect() as peer:
            producer = site.join(peer, "reset")
            if site.witness.exact:
                taken = peer.welcome.next
            peer.send(peer.data(site.signals((7, 1))))
            signals += 1
            peer.reset()
    with site.place.connect() as peer:
        site.join(peer, "reset")
        taken = peer.welcome.next
    site.witness.sent(producer, *[(7, 1)] * (taken - site.witness.producers[producer]))
    expect(taken <= signals or not site.witness.exact, f"{taken} signals were taken of {signals}")
    return f"{taken} of {signals} frames were taken, each once"


@case(
    cwe=404, vector=STOPS, surface="ingest", precondition="a hello that is being answered",
    steps="say hello and reset at once, 100 times", expected="no connection and no producer is left behind held",
)  # fmt: skip
def resets_within_hello(site: "Site") -> str:
    """TCP resets while the producer is opened."""
    producer = "attacker-gone"
    for _ in range(100):
        with site.place.connect() as peer:
            peer.send(wire.hello(producer, site.tokens["attacker"]))
            peer.reset()
    with site.place.connect() as peer:
        name = site.join(peer, "gone")
        site.admit(peer, name, (7, 1))
    return "the producer can be opened, and sends"
