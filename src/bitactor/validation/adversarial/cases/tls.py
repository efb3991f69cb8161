"""TLS and certificates, both ways: wrong clients at the service, and rogue services that wait for a client's token."""

import contextlib
import os
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec

from bitactor.validation.adversarial import rawwire as wire
from bitactor.validation.adversarial.certificates import CLIENT, HOUR, SERVER, Authority, Pair, key_bytes
from bitactor.validation.adversarial.registry import NotAsExpected, case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.service import Served
    from bitactor.validation.adversarial.site import Site

IMPERSONATES: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:N"
LISTENS: Final = "AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:N"
STOPS: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"


# --- wrong clients ---


def _handshake_refused(served: "Served", context: ssl.SSLContext) -> str:
    """A client with this context must not get as far as a welcome, nor even an error of the protocol."""
    try:
        with served.connect(context=context) as peer:
            peer.send(wire.hello("cert-1", ""))
            found = peer.refusal()
    except (ssl.SSLError, OSError) as error:
        return f"the handshake fails: {getattr(error, 'reason', None) or type(error).__name__}"
    expect(found == "closed", f"error {found} instead of a failed handshake")
    return "the handshake fails: the service ends it"


def _client(site: "Site", pair: Pair) -> ssl.SSLContext:
    return site.trusting(pair)


@case(
    cwe=295, vector=IMPERSONATES, surface="ingest", short=True,
    precondition="the service takes client certificates of one CA",
    steps="show a certificate for `certified` that another CA signed", expected="the handshake fails",
)  # fmt: skip
def client_of_another_ca(site: "Site") -> str:
    """A client certificate with the right name from a wrong CA."""
    other = Authority(site.new_directory("ca"), "adversarial CA")
    return _handshake_refused(site.own, _client(site, other.sign("c", "certified", CLIENT)))


@case(cwe=298, vector=IMPERSONATES, surface="ingest", precondition="as above",
      steps="show a certificate for `certified` that ended an hour ago", expected="the handshake fails")  # fmt: skip
def client_expired(site: "Site") -> str:
    """An expired client certificate."""
    return _handshake_refused(
        site.own, _client(site, site.authority.sign("old", "certified", CLIENT, begins=-2 * HOUR, ends=-HOUR))
    )


@case(cwe=295, vector=IMPERSONATES, surface="ingest", precondition="as above",
      steps="show a certificate that begins in an hour", expected="the handshake fails")  # fmt: skip
def client_not_yet_valid(site: "Site") -> str:
    """A client certificate that is not valid yet."""
    return _handshake_refused(site.own, _client(site, site.authority.sign("new", "certified", CLIENT, begins=HOUR)))


@case(
    cwe=295, vector=IMPERSONATES, surface="ingest", short=True, precondition="as above",
    steps="show a server's certificate, of the right CA, with `certified` as its name",
    expected="the handshake fails",
)  # fmt: skip
def client_without_client_purpose(site: "Site") -> str:
    """A certificate that is not for clients."""
    return _handshake_refused(site.own, _client(site, site.authority.sign("srv", "certified", SERVER)))


@case(cwe=295, vector=IMPERSONATES, surface="ingest", precondition="as above",
      steps="show a certificate for `certified` that signed itself", expected="the handshake fails")  # fmt: skip
def client_self_signed(site: "Site") -> str:
    """A self-signed client certificate."""
    return _handshake_refused(
        site.own, _client(site, site.authority.sign("own", "certified", CLIENT, self_signed=True))
    )


@case(
    cwe=287, vector=IMPERSONATES, surface="ingest", precondition="as above",
    steps="show a good certificate of a name that no identity has, and an empty token", expected="auth_failed",
)  # fmt: skip
def client_nobody_knows(site: "Site") -> str:
    """A good certificate of somebody who is no identity."""
    with site.own.connect(context=_client(site, site.authority.sign("who", "stranger", CLIENT))) as peer:
        peer.send(wire.hello("cert-1", ""))
        code = peer.refusal()
    expect(code == "auth_failed", f"{code} instead of auth_failed")
    return "auth_failed"


@case(
    cwe=290, vector=IMPERSONATES, surface="ingest", precondition="`certified` is known by its common name",
    steps=(
        "show good certificates with the common names 'DNS:certified', 'certified ' and 'CERTIFIED', and "
        "one with the DNS name"
    ),
    expected="auth_failed for each",
)  # fmt: skip
def client_name_nearly_right(site: "Site") -> str:
    """Names that a careless comparison takes for the identity's."""
    given: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("DNS:certified", ()), ("certified ", ()), ("CERTIFIED", ()), ("x", ("certified",)),
    )  # fmt: skip
    for at, (common_name, names) in enumerate(given):
        pair = site.authority.sign(f"near{at}", common_name, CLIENT, names=names)
        with site.own.connect(context=_client(site, pair)) as peer:
            peer.send(wire.hello("cert-1", ""))
            code = peer.refusal()
        expect(code == "auth_failed", f"{common_name!r}, {names}: {code} instead of auth_failed")
    return "auth_failed"


@case(cwe=287, vector=IMPERSONATES, surface="ingest", precondition="a good client certificate and a wrong token",
      steps="show both", expected="auth_failed: a token that is shown counts")  # fmt: skip
def good_certificate_wrong_token(site: "Site") -> str:
    """A wrong token beside a good certificate."""
    with site.own.connect(context=_client(site, site.client_pair)) as peer:
        peer.send(wire.hello("cert-1", "Z" * 43))
        code = peer.refusal()
    expect(code == "auth_failed", f"{code} instead of auth_failed")
    return "auth_failed"


@case(cwe=306, vector=IMPERSONATES, surface="ingest", precondition="tls.client_required",
      steps="connect without a certificate, with a good token", expected="the handshake fails")  # fmt: skip
def certificate_missing(site: "Site") -> str:
    """No client certificate where one is required."""
    served = site.strict
    try:
        with served.connect(context=site.trusting()) as peer:
            peer.send(wire.hello("attacker-1", site.tokens["attacker"]))
            found = peer.refusal()
    except (ssl.SSLError, OSError) as error:
        return f"the handshake fails: {getattr(error, 'reason', error)}"
    expect(found == "closed", f"{found} instead of a failed handshake")
    return "the handshake fails: the service ends it"


@case(cwe=326, vector=LISTENS, surface="ingest", remote=True, short=True,
      steps="offer TLS 1.2 at most", expected="refused with TLS's own alert")  # fmt: skip
def tls_1_2(site: "Site") -> str:
    """TLS 1.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with site.place.connect(context=context) as peer:
            version = getattr(peer.socket, "version", str)()
    except (ssl.SSLError, OSError) as error:
        return f"refused: {getattr(error, 'reason', error)}"
    raise NotAsExpected(f"{version} is spoken")


@case(cwe=384, vector="AV:N/AC:H/PR:L/UI:N/S:U/C:N/I:H/A:N", surface="ingest",
      steps="connect, see whether a session ticket is given, connect again with that session",
      expected="no tickets: a resumed session would not check its client again")  # fmt: skip
def session_resumed(site: "Site") -> str:
    """Resuming a TLS session."""
    context = _client(site, site.client_pair)
    with site.own.connect(context=context) as peer:
        answer = peer.greet("cert-1", "")
        expect(answer.kind == wire.WELCOME, f"a good certificate is refused: {answer}")
        site.witness.joined("cert-1")
        session = peer.socket.session if isinstance(peer.socket, ssl.SSLSocket) else None
        expect(session is None or not session.has_ticket, "the service gives session tickets")
    return "no ticket is given"


@case(
    cwe=319, vector=LISTENS, surface="ingest", remote=True, short=True,
    steps="send a hello in plain text to the TLS port", expected="tls_required in plain text, then the end",
)  # fmt: skip
def plain_text_to_tls(site: "Site") -> str:
    """Plain text to the TLS port."""
    with site.place.connect(plain=True) as peer:
        peer.send(wire.hello("attacker-plain", "no token of anybody"))
        code = peer.refusal()
        expect(code == "tls_required", f"{code} instead of tls_required")
        expect(peer.refusal() == "closed", "the connection stays open")
    return "tls_required, then the connection's end"


@case(cwe=436, vector=STOPS, surface="ingest", remote=True,
      steps="send an HTTP request to the TLS port", expected="tls_required; no HTTP is answered")  # fmt: skip
def http_to_tls(site: "Site") -> str:
    """HTTP to the ingest port."""
    with site.place.connect(plain=True) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        code = peer.refusal()
    expect(code == "tls_required", f"{code} instead of tls_required")
    return "tls_required"


@case(cwe=436, vector=STOPS, surface="ingest", precondition="a service without TLS, on loopback",
      steps="begin a TLS handshake with it", expected="error magic, then the end")  # fmt: skip
def tls_to_plain_text(site: "Site") -> str:
    """TLS to a plain text port."""
    with site.plain.connect() as peer:
        peer.send(bytes.fromhex("16030100ff010000fb0303") + bytes(244))
        code = peer.refusal()
    expect(code == "magic", f"{code} instead of magic")
    return "error magic"


@case(
    cwe=20, vector=STOPS, surface="ingest", remote=True,
    steps="send a TLS record that begins a handshake and holds random bytes", expected="an alert, then the end",
)  # fmt: skip
def handshake_of_garbage(site: "Site") -> str:
    """A handshake that is none."""
    junk = site.random.randbytes(200)
    with site.place.connect(plain=True) as peer:
        peer.send(b"\x16\x03\x01" + struct.pack(">H", len(junk)) + junk)
        peer.socket.settimeout(wire.ANSWER_S)
        answer = peer.socket.recv(100)
        expect(answer[:1] in {b"\x15", b""}, f"answered with {answer!r}")
        end = peer.socket.recv(100) if answer else b""
    expect(end == b"", f"and then with {end!r}")
    return "an alert, then the connection's end" if answer else "the connection's end"


@case(
    cwe=770, vector=STOPS, surface="ingest", remote=True,
    steps="send handshake records of 16 KiB for ever, each announcing more to come",
    expected="ended after 32 KiB at most",
)  # fmt: skip
def handshake_without_end(site: "Site") -> str:
    """A ClientHello that never ends."""
    sent = 0
    with site.place.connect(plain=True) as peer:
        record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(16380)
        with contextlib.suppress(OSError):
            for _ in range(64):
                peer.socket.sendall(record)
                sent += len(record)
                peer.socket.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    if not peer.socket.recv(100):
                        break
                peer.socket.settimeout(wire.ANSWER_S)
    expect(sent < 64 * 16389, "1 MiB of a handshake was taken")
    return f"ended after {sent} bytes were sent"


@case(cwe=319, vector="AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:L/A:N", surface="ingest", short=True, remote=True,
      steps="send half a frame, cut TCP without TLS's goodbye", expected="the half is not taken")  # fmt: skip
def truncation_attack(site: "Site") -> str:
    """TCP cut without TLS's goodbye, in the middle of a frame."""
    with site.place.connect() as peer:
        site.join(peer, "truncated")
        peer.send(peer.data(site.signals((7, 1), (8, 2)))[:100])
        peer.reset()
    return "nothing was taken"


# --- the service's own files ---


def _does_not_start(site: "Site", words: str, **files: Path) -> str:
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in files.items()]
    directory = site.new_directory("refusing")
    done = site.run(
        "serve", _app(), "--data-dir", directory / "data", "--ingest-port", "0", "--admin-port", "0", *flags
    )
    said = done.stderr.strip()
    expect(done.returncode in {1, 2}, f"status {done.returncode}: {said[-300:]}")
    expect(words in said and "Traceback" not in said, f"it says {said[-300:]!r}")
    return said.splitlines()[-1].replace(str(site.directory), "…")


def _app() -> Path:
    from bitactor.validation.adversarial.service import APP

    return APP


@case(cwe=295, vector=STOPS, surface="files", steps="serve with a certificate and the key of another",
      expected="it does not start, and says why")  # fmt: skip
def key_of_another_certificate(site: "Site") -> str:
    """A certificate with a key that is not its own."""
    other = site.authority.sign("another", "localhost", SERVER)
    return _does_not_start(site, "cannot use", tls_cert_file=site.server_pair.cert_file, tls_key_file=other.key_file)


@case(
    cwe=400, vector="AV:L/AC:L/PR:H/UI:N/S:U/C:N/I:N/A:L", surface="files",
    steps="serve with a key that needs a password",
    expected="it does not wait for one at a terminal: it does not start, and says why",
)  # fmt: skip
def key_encrypted(site: "Site") -> str:
    """A key that is encrypted."""
    file = site.new_directory("key") / "key.pem"
    file.touch(0o600)
    file.write_bytes(key_bytes(ec.generate_private_key(ec.SECP256R1()), b"password"))
    return _does_not_start(site, "encrypted", tls_cert_file=site.server_pair.cert_file, tls_key_file=file)


@case(cwe=636, vector=STOPS, surface="files", precondition="a running service",
      steps="write nonsense over its certificate, SIGHUP, connect; then put it back",
      expected="the former certificate stays in force")  # fmt: skip
def certificate_replaced_by_nonsense(site: "Site") -> str:
    """Nonsense in place of the certificate while the service runs."""
    import signal

    served, file = site.own, site.server_pair.cert_file
    good = file.read_bytes()
    try:
        file.write_bytes(b"-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n")
        os.kill(served.pid, signal.SIGHUP)
        site.witness.send()
    finally:
        file.write_bytes(good)
        os.kill(served.pid, signal.SIGHUP)
    return "connections go on with the former"


# --- rogue services, and what a client tells them ---


class Rogue:
    """Something that listens where a service should be, and keeps what clients tell it."""

    def __init__(self, context: ssl.SSLContext | None, first: bytes = b"") -> None:
        self.heard = b""
        self._context = context
        self._first = first
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # who accepts is woken
        self._listening.close()
        self._thread.join(10)

    def _serve(self) -> None:
        self._listening.settimeout(15)
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listening.accept()
                raw.settimeout(2)
                with raw, contextlib.suppress(OSError, ssl.SSLError, ValueError):
                    if self._first:
                        raw.sendall(self._first)
                    spoken = self._context.wrap_socket(raw, server_side=True) if self._context else raw
                    while data := spoken.recv(4096):
                        self.heard += data


_CLIENT: Final = """
import bitactor as ba
try:
    with ba.Client(f"localhost:{PORT}", producer="attacker-1", token_file=TOKEN, ca_file=CA, connect_s=1.5) as client:
        client.send(kind="trade", key=1, value=1)
        client.flush()
    print("SENT")
except (OSError, ba.ProtocolError) as error:
    print(type(error).__name__, str(error)[:200])
"""


def _not_told(site: "Site", context: ssl.SSLContext | None, first: bytes = b"") -> str:
    """A client that meets this service must fail and tell it no token."""
    secret = "the-token-that-nobody-may-hear-" + "x" * 12
    token = site.new_directory("client") / "token"
    token.touch(0o600)
    token.write_text(secret)
    with Rogue(context, first) as rogue:
        code = f"PORT = {rogue.port}\nTOKEN = {str(token)!r}\nCA = {str(site.authority.file)!r}\n{_CLIENT}"
        done = site.python(code, timeout_s=60)
    said = done.stdout.strip()
    expect(secret.encode() not in rogue.heard, "the client told its token")
    expect(done.returncode == 0 and said != "" and "SENT" not in said, f"the client says {said!r} {done.stderr[-300:]}")
    return f"the client ends with {said[:160]}"


def _server(pair: Pair, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    context.maximum_version = most
    return context


@case(
    cwe=295, vector=LISTENS, surface="client", short=True,
    steps="a server with a certificate of another CA waits for a client",
    expected="the client ends the handshake; its token is not sent",
)  # fmt: skip
def server_of_another_ca(site: "Site") -> str:
    """A server of a CA that the client does not trust."""
    other = Authority(site.new_directory("ca"), "adversarial CA")
    return _not_told(site, _server(other.sign("s", "localhost", SERVER, names=("localhost",))))


@case(
    cwe=297, vector=LISTENS, surface="client",
    steps="a server with a good certificate of another host waits for a client", expected="as above",
)  # fmt: skip
def server_of_another_name(site: "Site") -> str:
    """A server whose certificate is for another name."""
    return _not_told(site, _server(site.authority.sign("other", "elsewhere.test", SERVER, names=("elsewhere.test",))))


@case(
    cwe=297, vector=LISTENS, surface="client",
    steps="a server whose common name is localhost, without alternative names",
    expected="as above: only alternative names count",
)  # fmt: skip
def server_with_a_common_name_only(site: "Site") -> str:
    """A server that has the name only as its common name."""
    return _not_told(site, _server(site.authority.sign("cn", "localhost", SERVER)))


@case(
    cwe=298, vector=LISTENS, surface="client", steps="a server with an expired certificate waits for a client",
    expected="as above",
)  # fmt: skip
def server_expired(site: "Site") -> str:
    """A server with an expired certificate."""
    pair = site.authority.sign("sold", "localhost", SERVER, names=("localhost",), begins=-2 * HOUR, ends=-HOUR)
    return _not_told(site, _server(pair))


@case(
    cwe=295, vector=LISTENS, surface="client", steps="a server with a certificate that begins in an hour",
    expected="as above",
)  # fmt: skip
def server_not_yet_valid(site: "Site") -> str:
    """A server with a certificate that is not valid yet."""
    pair = site.authority.sign("snew", "localhost", SERVER, names=("localhost",), begins=HOUR)
    return _not_told(site, _server(pair))


@case(
    cwe=295, vector=LISTENS, surface="client", steps="a server shows a client's certificate with its name",
    expected="as above",
)  # fmt: skip
def server_without_server_purpose(site: "Site") -> str:
    """A server with a certificate that is for clients."""
    return _not_told(site, _server(site.authority.sign("scl", "localhost", CLIENT, names=("localhost",))))


@case(
    cwe=757, vector=LISTENS, surface="client", steps="a server with a good certificate speaks TLS 1.2 at most",
    expected="as above",
)  # fmt: skip
def server_speaks_tls_1_2(site: "Site") -> str:
    """A server that talks the client down to TLS 1.2."""
    pair = site.authority.sign("s12", "localhost", SERVER, names=("localhost",))
    return _not_told(site, _server(pair, ssl.TLSVersion.TLSv1_2))


@case(
    cwe=319, vector=LISTENS, surface="client",
    steps="a server answers in plain text, with tls_required and with a welcome",
    expected="as above: the client does not fall back to plain text",
)  # fmt: skip
def server_speaks_plain_text(site: "Site") -> str:
    """A server that wants the client to speak plain text."""
    welcome = wire.message(wire.WELCOME, bytes(60))
    return _not_told(site, None, first=welcome)
