"""Authentication and authorisation: who says nothing, says it wrong, or wants more than it may, on both ports."""

import struct
import time
from typing import TYPE_CHECKING, Any, Final

from bitactor.validation.adversarial import rawwire as wire
from bitactor.validation.adversarial.registry import NotAsExpected, case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.rawhttp import Answer
    from bitactor.validation.adversarial.rawwire import Peer
    from bitactor.validation.adversarial.site import Site

OPEN_DOOR: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:N"  # anybody sends
IMPOSTOR: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:H/A:N"  # one of ours sends as, or what, it may not
READS: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"
READS_MORE: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N"
RULES: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:H"  # anybody erases, forgets
RULES_MORE: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:H/A:H"


def _refused(peer: "Peer", code: str) -> str:
    found = peer.refusal()
    expect(found == code, f"{found} instead of the error {code}")
    expect(peer.refusal() == "closed", f"error {code}, and the connection stays open")
    return f"error {code}, then the connection's end"


def _greeting_refused(site: "Site", producer: str, token: str | bytes, code: str) -> str:
    with site.place.connect() as peer:
        peer.send(wire.hello(producer, token))
        return _refused(peer, code)


# --- the ingest port: before and in hello ---


@case(cwe=306, vector=OPEN_DOOR, surface="ingest", remote=True, short=True, precondition="TLS, no hello",
      steps="send a data frame first", expected="hello_expected; nothing is taken")  # fmt: skip
def data_before_hello(site: "Site") -> str:
    """Data before hello."""
    with site.place.connect() as peer:
        peer.send(wire.frame(site.signals((7, 1)), producer=wire.text_key("honest-1"), sequence=0))
        return _refused(peer, "hello_expected")


@case(cwe=306, vector=READS, surface="ingest", remote=True, precondition="TLS, no hello",
      steps="send subscribe, ping, name, unsubscribe and close first, each on a connection of its own",
      expected="hello_expected for each")  # fmt: skip
def anything_before_hello(site: "Site") -> str:
    """Any other message before hello."""
    said = ""
    for data in (
        wire.subscribe(), wire.ping(), wire.message(wire.CLOSE, bytes(4)), wire.message(wire.UNSUBSCRIBE, bytes(4)),
        wire.message(wire.NAME, struct.pack(">Q", wire.text_key("x")) + wire.text("x")),
    ):  # fmt: skip
        with site.place.connect() as peer:
            peer.send(data)
            said = _refused(peer, "hello_expected")
    return said


@case(cwe=287, vector=OPEN_DOOR, surface="ingest", remote=True, short=True,
      steps="say hello with 43 random characters as token", expected="auth_failed")  # fmt: skip
def token_guessed(site: "Site") -> str:
    """A guessed token."""
    return _greeting_refused(site, site.prefix + "guess", "Z" * 43, "auth_failed")


@case(cwe=287, vector=OPEN_DOOR, surface="ingest", remote=True,
      steps="say hello with an empty token and without a client certificate", expected="auth_failed")  # fmt: skip
def token_empty(site: "Site") -> str:
    """Neither token nor certificate."""
    return _greeting_refused(site, site.prefix + "empty", "", "auth_failed")


@case(cwe=836, vector=OPEN_DOOR, surface="ingest", precondition="the auth file, with its hashes, was read by others",
      steps="say hello with the token's SHA-256, as hex and as bytes", expected="auth_failed for both")  # fmt: skip
def token_hash_instead(site: "Site") -> str:
    """The hash of a token instead of the token."""
    import hashlib

    digest = hashlib.sha256(site.tokens["attacker"].encode())
    _greeting_refused(site, "attacker-hash", digest.hexdigest(), "auth_failed")
    return _greeting_refused(site, "attacker-hash", digest.digest(), "auth_failed")


@case(cwe=303, vector=OPEN_DOOR, surface="ingest", remote=True,
      steps="say hello with a good token but its last character; then with it and a zero, a blank, a line feed",
      expected="auth_failed for each")  # fmt: skip
def token_nearly_right(site: "Site") -> str:
    """A token cut short, or with something behind it."""
    token = site.tokens["attacker"].encode()
    said = ""
    for near in (token[:-1], token + b"\0", token + b" ", token + b"\n", token[:1]):
        said = _greeting_refused(site, site.prefix + "near", near, "auth_failed")
    return said


@case(cwe=1390, vector=OPEN_DOOR, surface="ingest",
      steps="say hello with the token of the admin interface", expected="auth_failed")  # fmt: skip
def token_of_the_other_port(site: "Site") -> str:
    """The admin interface's token on the ingest port."""
    return _greeting_refused(site, "attacker-other", site.tokens["admin"], "auth_failed")


@case(cwe=204, vector="AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N", surface="ingest",
      steps="say hello with a wrong token as a producer that exists and as one that does not",
      expected="the same error with the same words")  # fmt: skip
def producers_not_told_to_strangers(site: "Site") -> str:
    """Finding out by errors which producers exist."""
    said = []
    for producer in ("honest-1", "never-seen"):
        with site.place.connect() as peer:
            peer.send(wire.hello(producer, "Z" * 43))
            answer = peer.until()
            expect(answer is not None, "no error")
            said.append((answer.code, answer.words) if answer else ("", ""))
    expect(said[0] == said[1], f"{said[0]} and {said[1]}")
    return f"both times {said[0]}"


# --- the ingest port: what an identity may ---


@case(
    cwe=639, vector=IMPOSTOR, surface="ingest", short=True,
    precondition="`attacker` may send as attacker-* and shared-*", steps="say hello as honest-2",
    expected="producer_forbidden",
)  # fmt: skip
def producer_outside_its_globs(site: "Site") -> str:
    """A producer's name that the identity's globs do not allow."""
    return _greeting_refused(site, "honest-2", site.tokens["attacker"], "producer_forbidden")


@case(cwe=178, vector=IMPOSTOR, surface="ingest", precondition="as above",
      steps="say hello as ATTACKER-1, ' attacker-1', attacker-1 with a full-width dash, and with brackets",
      expected="producer_forbidden for each")  # fmt: skip
def producer_nearly_in_its_globs(site: "Site") -> str:
    """Names that a careless comparison takes for permitted ones."""
    said = ""
    for name in ("ATTACKER-1", " attacker-1", "attacker\uff0d1", "[a]ttacker-1", "x\nattacker-1"):
        said = _greeting_refused(site, name, site.tokens["attacker"], "producer_forbidden")
    return said


@case(
    cwe=639, vector=IMPOSTOR, surface="ingest", short=True,
    precondition="shared-1 was first used by `honest`; both may use shared-*",
    steps="`attacker` says hello as shared-1", expected="producer_forbidden: it belongs to who used it first",
)  # fmt: skip
def producer_of_another(site: "Site") -> str:
    """A producer that another identity owns."""
    _owned_by_honest(site)
    return _greeting_refused(site, "shared-1", site.tokens["attacker"], "producer_forbidden")


@case(
    cwe=639, vector=IMPOSTOR, surface="ingest", precondition="as above",
    steps="`attacker` says hello as shared-1 with the takeover flag",
    expected="producer_forbidden; its epoch stays",
)  # fmt: skip
def takeover_of_another(site: "Site") -> str:
    """Taking over a producer that another identity owns."""
    epoch = _owned_by_honest(site)
    with site.place.connect() as peer:
        peer.send(wire.hello("shared-1", site.tokens["attacker"], flags=1))
        said = _refused(peer, "producer_forbidden")
    after = _owned_by_honest(site)
    expect(after == epoch, f"the epoch was {epoch} and is {after}")
    return said


def _owned_by_honest(site: "Site") -> int:
    with site.place.connect() as peer:
        answer = peer.greet("shared-1", site.tokens["honest"])
        expect(answer.kind == wire.WELCOME, f"its owner is refused: {answer}")
        site.witness.joined("shared-1")
        return peer.welcome.epoch


@case(cwe=290, vector=IMPOSTOR, surface="ingest", short=True, remote=True, precondition="welcome as a producer",
      steps="send a frame with the number of the honest producer, its next sequence and epoch",
      expected="producer_forbidden; nothing is taken")  # fmt: skip
def forged_producer_number(site: "Site") -> str:
    """Another producer's number in a frame."""
    with site.place.connect() as peer:
        site.join(peer, "forged")
        sequence = site.witness.producers.get(site.witness.producer, 0)
        peer.send(
            peer.data(site.signals((1_000, 1 << 40)), producer=wire.text_key(site.witness.producer), sequence=sequence)
        )
        return _refused(peer, "producer_forbidden")


@case(cwe=862, vector=IMPOSTOR, surface="ingest", short=True, precondition="`attacker` may send trade, not quote",
      steps="send a quote", expected="kind_forbidden; nothing is taken")  # fmt: skip
def kind_forbidden(site: "Site") -> str:
    """A kind that the identity may not send."""
    with site.place.connect() as peer:
        site.join(peer, "kind")
        peer.send(peer.data(wire.signal(kind=wire.QUOTE)))
        return _refused(peer, "kind_forbidden")


@case(
    cwe=863, vector=IMPOSTOR, surface="ingest", precondition="as above",
    steps="send a frame of 8,191 trades and then a quote", expected="kind_forbidden; none of the frame is taken",
)  # fmt: skip
def kind_forbidden_at_the_end(site: "Site") -> str:
    """A forbidden kind behind 8,191 permitted signals."""
    with site.place.connect() as peer:
        site.join(peer, "kind")
        peer.send(peer.data(wire.signal(7, 1) * 8191 + wire.signal(kind=wire.QUOTE)))
        return _refused(peer, "kind_forbidden")


@case(cwe=863, vector=IMPOSTOR, surface="ingest", precondition="as above",
      steps="send a signal of kind heard, which only actors emit", expected="kind_forbidden")  # fmt: skip
def kind_of_outputs(site: "Site") -> str:
    """Forging an output: a kind that only actors emit."""
    with site.place.connect() as peer:
        site.join(peer, "output")
        peer.send(peer.data(wire.signal(kind=wire.HEARD)))
        return _refused(peer, "kind_forbidden")


@case(cwe=862, vector=READS_MORE, surface="ingest", short=True, precondition="`attacker` may not read",
      steps="subscribe", expected="read_forbidden; no outputs come, the connection goes on")  # fmt: skip
def subscribe_without_read(site: "Site") -> str:
    """Reading outputs without the right to."""
    with site.place.connect() as peer:
        producer = site.join(peer, "subscribe")
        peer.send(wire.subscribe())
        code = peer.refusal()
        expect(code == "read_forbidden", f"{code} instead of read_forbidden")
        site.admit(peer, producer, (7, 1))
        site.witness.send()
        peer.send(wire.ping(9))
        seen = peer.until(wire.PONG, wire.OUTPUTS)
        expect(seen is not None and seen.kind == wire.PONG, "outputs came")
    return "read_forbidden, no outputs, signals still taken"


@case(cwe=862, vector=IMPOSTOR, surface="ingest", precondition="`reader` says hello without a producer",
      steps="send a frame, with number 0 and with the honest producer's", expected="producer_forbidden")  # fmt: skip
def reader_sends_data(site: "Site") -> str:
    """Data from who only reads."""
    said = ""
    for number in (0, wire.text_key("honest-1")):
        with site.place.connect() as peer:
            peer.greet("", site.tokens["reader"])
            peer.send(wire.frame(wire.signal(), producer=number, sequence=0))
            said = _refused(peer, "producer_forbidden")
    return said


@case(cwe=862, vector=IMPOSTOR, surface="ingest", precondition="as above",
      steps="send a name", expected="producer_forbidden; the name is not known")  # fmt: skip
def reader_sends_names(site: "Site") -> str:
    """A name from who only reads."""
    with site.place.connect() as peer:
        peer.greet("", site.tokens["reader"])
        peer.send(wire.message(wire.NAME, struct.pack(">Q", wire.text_key("n")) + wire.text("n")))
        return _refused(peer, "producer_forbidden")


@case(
    cwe=384, vector=IMPOSTOR, surface="ingest", precondition="welcome as `attacker`",
    steps="say hello again, with the token of `honest`", expected="hello_expected or type: the connection ends",
)  # fmt: skip
def identity_changed_within_a_connection(site: "Site") -> str:
    """A second hello that would change who this is."""
    with site.place.connect() as peer:
        site.join(peer, "twice")
        peer.send(wire.hello("honest-1", site.tokens["honest"]))
        code = peer.refusal()
        expect(code in {"hello_expected", "type"}, f"{code} instead of hello_expected")
        expect(peer.refusal() == "closed", "the connection stays open")
    return f"error {code}, then the connection's end"


@case(
    cwe=613, vector=IMPOSTOR, surface="ingest",
    precondition="a connection that is welcome; its identity is then taken out of the auth file",
    steps="write the auth file without `attacker`, SIGHUP, send a frame",
    expected="auth_failed; the connection ends",
)  # fmt: skip
def identity_taken_away(site: "Site") -> str:
    """Going on after one's identity was taken away."""
    return _with_identities(site, lambda text: text.replace('name = "attacker"', 'name = "somebody"', 1), "auth_failed")


@case(
    cwe=613, vector=IMPOSTOR, surface="ingest",
    precondition="a connection that is welcome; its kinds are then narrowed",
    steps="write the auth file without kinds for `attacker`, SIGHUP, send a trade", expected="kind_forbidden",
)  # fmt: skip
def permission_taken_away(site: "Site") -> str:
    """Going on with a permission that was taken away."""
    return _with_identities(site, lambda text: text.replace('["trade"]', "[]", 1), "kind_forbidden")


def _with_identities(site: "Site", change: "object", code: str) -> str:
    import os
    import signal

    served = site.own
    file = served.directory / "auth.toml"
    with served.connect() as peer:
        site.join(peer, "revoked")
        try:
            file.write_text(change(site.identities()))  # type: ignore[operator]
            os.kill(served.pid, signal.SIGHUP)
            found = peer.refusal(1.0)
            if found == "silence":
                peer.send(peer.data(site.signals((7, 1))))
                found = peer.refusal()
        finally:
            file.write_text(site.identities())
            os.kill(served.pid, signal.SIGHUP)
        expect(found == code, f"{found} instead of the error {code}")
    for _ in range(50):  # the identities are as they were when this is welcome
        with served.connect() as peer:
            if peer.greet("attacker-revoked", site.tokens["attacker"]).kind == wire.WELCOME:
                return f"error {found}"
        time.sleep(0.1)
    raise NotAsExpected("the identity that was given back is not welcome after 5 s")


# --- the admin port ---


def _denied(answer: "Answer", status: int) -> str:
    expect(answer.status == status, f"status {answer.status} {answer.body[:120]!r} instead of {status}")
    return f"status {answer.status}, {answer.code}"


_READ: Final = ("/api/v1/kinds", "/api/v1/actors", "/api/v1/statistics", "/api/v1/log", "/api/v1/producers",
                "/api/v1/actors/totals/state/1000", "/api/v1/actors/totals/table")  # fmt: skip
_CHANGES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("/api/v1/snapshot", {}),
    ("/api/v1/erase", {"key": 1_000}),
    ("/api/v1/producers/forget", {"name": "honest-1"}),
)


@case(cwe=306, vector=READS, surface="admin", short=True, remote=True, precondition="the interface has a token",
      steps="GET each path of the API that reads, without a token", expected="401 for each")  # fmt: skip
def api_without_token(site: "Site") -> str:
    """Reading over HTTP without a token."""
    said = ""
    for path in _READ:
        said = _denied(site.place.admin.get(path, token=""), 401)
    return said


@case(cwe=306, vector=READS, surface="admin", remote=True, precondition="as above",
      steps="GET /metrics without a token", expected="401")  # fmt: skip
def metrics_without_token(site: "Site") -> str:
    """Metrics without a token."""
    return _denied(site.place.admin.get("/metrics", token=""), 401)


@case(cwe=306, vector=READS, surface="admin", remote=True, precondition="as above",
      steps="POST /api/v1/query without a token", expected="401; nothing is run")  # fmt: skip
def sql_without_token(site: "Site") -> str:
    """SQL without a token."""
    return _denied(site.place.admin.post("/api/v1/query", {"sql": "select 1"}, token=""), 401)


@case(cwe=306, vector=RULES, surface="admin", short=True, remote=True, precondition="as above",
      steps="POST snapshot, erase and forget without a token", expected="401; nothing changes")  # fmt: skip
def changes_without_token(site: "Site") -> str:
    """Erasing, forgetting and snapshots without a token."""
    said = ""
    for path, body in _CHANGES:
        said = _denied(site.place.admin.post(path, body, token=""), 401)
    return said


@case(cwe=862, vector=RULES_MORE, surface="admin", short=True, precondition="`reader` may read and not administer",
      steps="POST snapshot, erase and forget with its token", expected="403; nothing changes")  # fmt: skip
def changes_by_a_reader(site: "Site") -> str:
    """Erasing, forgetting and snapshots by who may only read."""
    said = ""
    for path, body in _CHANGES:
        said = _denied(site.place.admin.post(path, body, token=site.tokens["reader"]), 403)
    return said


@case(cwe=862, vector=READS_MORE, surface="admin", precondition="`attacker` may send, and not read",
      steps="GET each path that reads, and POST a query, with its token", expected="403 for each")  # fmt: skip
def reading_by_a_producer(site: "Site") -> str:
    """Reading by who may only send."""
    said = ""
    for path in (*_READ, "/metrics"):
        said = _denied(site.place.admin.get(path, token=site.tokens["attacker"]), 403)
    return (
        said
        + "; "
        + _denied(site.place.admin.post("/api/v1/query", {"sql": "select 1"}, token=site.tokens["attacker"]), 403)
    )


@case(
    cwe=598, vector=READS, surface="admin", precondition="a good token",
    steps="give it in the query string, in a cookie, as Basic and as X-Api-Key",
    expected="401: a header is the only place",
)  # fmt: skip
def token_in_other_places(site: "Site") -> str:
    """A token where it would be logged or sent by a browser on its own."""
    import base64

    token = site.tokens["admin"]
    basic = base64.b64encode(f"admin:{token}".encode()).decode()
    path = "/api/v1/statistics"
    said = _denied(site.place.admin.get(f"{path}?token={token}&access_token={token}", token=""), 401)
    said = ""
    for header in (("Cookie", f"token={token}"), ("Authorization", f"Basic {basic}"), ("X-Api-Key", token)):
        said = _denied(site.place.admin.get(path, token="", headers=(header,)), 401)
    return said


@case(
    cwe=303, vector=READS, surface="admin", remote=True,
    steps=(
        "send `Authorization: Bearer`, with nothing, with a blank, with 8,000 characters, with bytes that "
        "are no UTF-8"
    ),
    expected="401 for each",
)  # fmt: skip
def bearer_malformed(site: "Site") -> str:
    """Authorization headers that are not one."""
    said = ""
    for value in ("Bearer", "Bearer  ", "bearer " + "x" * 8_000, "Bearer \udcff\udcfe", "Bearer null", "Bearer"):
        said = _denied(site.place.admin.get("/metrics", token="", headers=(("Authorization", value),)), 401)
    return said


# --- live and replayed ---


@case(
    cwe=841, vector=IMPOSTOR, surface="ingest",
    precondition="good signals, and attacks that were refused between them",
    steps="kill -9, start again, compare all state; stop, and compare with `bitactor log replay`",
    expected="the same state, live and replayed",
)  # fmt: skip
def live_and_replay_the_same(site: "Site") -> str:
    """Refused input that would come back on replay."""
    served = site.own
    with served.connect() as peer:
        producer = site.join(peer, "replayed")
        site.admit(peer, producer, (7, 1), (8, 2))
        peer.send(peer.data(wire.signal(kind=wire.QUOTE)))
        _refused(peer, "kind_forbidden")
    served.kill()
    site.witness.place = site.own
    site.witness.check()
    snapshot = served.admin.post("/api/v1/snapshot", {})
    expect(snapshot.status == 200, f"snapshot: {snapshot.body[:200]!r}")
    site.witness.check()
    done = site.run("log", "replay", str(_app()), str(served.data))
    expect(done.returncode == 0, f"log replay: {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
    said = [*done.stdout.strip().splitlines(), "status 0"]
    return f"the same after kill -9; log replay: {said[0]}"


def _app() -> object:
    from bitactor.validation.adversarial.service import APP

    return APP
