"""Defects of the ingest port: who is let in, what is read of messages, what is taken twice or out of order."""

import dataclasses
import ssl
from collections.abc import Callable
from typing import Any

from bitactor.validation.adversarial.variants.plant import defect, module, with_crc


@defect("a token is not checked: whoever shows a wrong one is the first identity", "access.token_guessed")
def token_unchecked() -> None:
    """Plant it."""

    def by_digest(self: Any, digest: bytes) -> Any:
        return next((one for one in self if digest in one.tokens_sha256), next(iter(self)))

    module("ingest.auth").Identities.by_digest = by_digest


@defect("every identity may use every producer's name", "access.producer_outside_its_globs")
def producer_names_unchecked() -> None:
    """Plant it."""
    module("ingest.auth").Identity.may_produce = lambda self, producer: True


@defect("a producer belongs to nobody", "access.producer_of_another")
def owner_unchecked() -> None:
    """Plant it."""
    admission = module("runtime.admission").Admission
    check = admission._check_owner
    admission._check_owner = lambda self, entry, identity, hello: check(self, entry, entry.identity, hello)


@defect("every identity may send every kind", "access.kind_forbidden")
def kinds_unchecked() -> None:
    """Plant it."""
    kind_set = module("protocol.frames").kind_set
    module("ingest.auth").Identity.kind_set = lambda self, declared: kind_set(declared.values())


@defect("reading outputs needs no right", "access.subscribe_without_read")
def read_unchecked() -> None:
    """Plant it."""
    session = module("ingest.session").Session
    original = session._subscribe

    def subscribe(self: Any, message: Any) -> Any:
        self.identity = dataclasses.replace(self.identity, read=True)
        return original(self, message)

    session._subscribe = subscribe


@defect("the CRC of data frames is not checked", "framing.crc_of_data")
def frame_crc_unchecked() -> None:
    """Plant it: the CRC is made right before it is looked at."""
    session = module("ingest.session").Session
    original = session._data
    session._data = lambda self, frame: original(self, with_crc(bytearray(frame)))


@defect("the CRC of other messages is not checked", "framing.crc_of_a_message")
def message_crc_unchecked() -> None:
    """Plant it: as above."""
    crc32c, session = module("_core._codec").crc32c, module("ingest.session")
    original = session.decode_message

    def decode(message: Any) -> Any:
        raw = bytearray(message)
        raw[12:16] = crc32c(bytes(raw[16:]), crc32c(bytes(raw[:12]))).to_bytes(4, "big")
        return original(memoryview(raw))

    session.decode_message = decode


@defect("a message may have any length", "framing.length_over")
def lengths_unlimited() -> None:
    """Plant it: a message over its limit is waited for."""
    receive, errors = module("ingest.receive"), module("protocol.errors")
    original = receive.message_length

    def length(head: Any, types: Any) -> int:
        try:
            return int(original(head, types))
        except errors.ProtocolError as error:
            if error.code != errors.Code.MESSAGE_TOO_LONG:
                raise
            return 16 + int.from_bytes(bytes(head[8:12]), "big")

    receive.message_length = length


@defect("signals that were sent before count again", "replay.same_frame_again")
def duplicates_accepted() -> None:
    """Plant it: a frame from before is given the sequence that is expected."""
    _resequenced(lambda sequence, following: sequence < following)


@defect("a gap in a producer's sequence is accepted", "replay.gap_of_one")
def gap_accepted() -> None:
    """Plant it: a frame from ahead is given the sequence that is expected."""
    _resequenced(lambda sequence, following: sequence > following)


def _resequenced(wanted: Callable[[int, int], bool]) -> None:
    admission = module("runtime.admission").Admission
    original = admission.admit

    def admit(self: Any, producer: Any, frame: Any, kinds: bytes) -> Any:
        if wanted(int.from_bytes(bytes(frame[24:32]), "big"), producer.next):
            raw = bytearray(frame)
            raw[24:32] = producer.next.to_bytes(8, "big")
            frame = with_crc(raw)
        return original(self, producer, frame, kinds)

    admission.admit = admit


@defect("frames of another epoch are accepted", "state.frame_of_another_epoch")
def epoch_unchecked() -> None:
    """Plant it: a frame is given the epoch of its connection."""
    admission = module("runtime.admission").Admission
    original = admission.admit

    def admit(self: Any, producer: Any, frame: Any, kinds: bytes) -> Any:
        raw = bytearray(frame)
        raw[16:20] = producer.epoch.to_bytes(4, "big")
        return original(self, producer, with_crc(raw), kinds)

    admission.admit = admit


@defect("a message may take as long as it likes", "exhaustion.frame_by_drops")
def frame_time_unlimited() -> None:
    """Plant it."""
    connection = module("ingest.connection").Connection
    original = connection._due

    def due(self: Any) -> Any:
        self._began = 0.0
        return original(self)

    connection._due = due


@defect("an address may open any number of connections", "exhaustion.connections_of_one_address")
def connections_unlimited() -> None:
    """Plant it."""
    server = module("ingest.server").Server
    original = server._accept

    def accept(self: Any, channel: Any) -> Any:
        limits = self.limits
        self.limits = dataclasses.replace(limits, connections_per_peer_max=1 << 20, connections_max=1 << 20)
        try:
            return original(self, channel)
        finally:
            self.limits = limits

    server._accept = accept


@defect("TLS 1.2 is spoken", "tls.tls_1_2")
def tls_1_2_allowed() -> None:
    """Plant it."""
    tls = module("ingest.tls")
    original = tls.server_context

    def context(files: Any) -> ssl.SSLContext:
        made: ssl.SSLContext = original(files)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        return made

    tls.server_context = context


@defect("dates of a client's certificate are not checked", "tls.client_expired")
def certificate_dates_unchecked() -> None:
    """Plant it: OpenSSL is told not to look at the time (X509_V_FLAG_NO_CHECK_TIME)."""
    tls = module("ingest.tls")
    original = tls.server_context

    def context(files: Any) -> ssl.SSLContext:
        made: ssl.SSLContext = original(files)
        made.verify_flags |= ssl.VerifyFlags(0x200000)
        return made

    tls.server_context = context


@defect("a client does not check the server's name", "tls.server_of_another_name")
def server_name_unchecked() -> None:
    """Plant it."""
    target = module("client.target").Target
    original = target.tls

    def tls(self: Any) -> Any:
        made = original(self)
        if made is not None:
            made.check_hostname = False
        return made

    target.tls = tls


@defect("tokens' hashes are compared byte by byte until they differ", "timing.how_much_agrees")
def comparison_stops_early() -> None:
    """Plant it."""

    def compare(one: bytes, other: bytes) -> bool:
        return all(a == b for a, b in zip(one, other, strict=True))

    module("ingest.auth").hmac = type("Hmac", (), {"compare_digest": staticmethod(compare)})
