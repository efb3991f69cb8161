"""Injection: what peers choose comes out again in logs, metrics, tables and terminals, and must stay text there."""

import json
import struct
from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial import rawwire as wire
from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.rawwire import Peer
    from bitactor.validation.adversarial.service import Served
    from bitactor.validation.adversarial.site import Site

FORGES_LOG: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:L/A:N"
FORGES_LOG_EARLY: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:L/A:N"
TERMINAL: Final = "AV:N/AC:L/PR:L/UI:R/S:C/C:N/I:L/A:N"
FORGED: Final = (
    '{"ts": "2020-01-01T00:00:00Z", "level": "error", "logger": "bitactor.runtime", "event": "forged by a peer"}'
)
EVIL: Final = f'x\r\n{FORGED}\n\x1b[2J\x1b]0;owned\x07\u2028\u202e"\\'


def _log_is_whole(served: "Served", since: int) -> int:
    """Every line written since then is one JSON object that the service made; how many."""
    lines = served.errors[since:].split(b"\n")
    for line in lines[:-1]:
        try:
            said = json.loads(line)
        except ValueError:
            expect(False, f"a line of the log is not JSON: {line[:160]!r}")
            continue
        expect(said.get("event") != "forged by a peer", "a line that a peer wrote stands in the log")
        expect(not any(byte < 0x20 or byte == 0x7F for byte in line), f"control bytes in the log: {line[:160]!r}")
    return len(lines) - 1


@case(
    cwe=117, vector=FORGES_LOG_EARLY, surface="ingest", short=True, precondition="log lines as JSON, level debug",
    steps=(
        "say hello with a client text and a producer that hold a line feed and a whole log line, escapes of "
        "terminals, U+2028"
    ),
    expected="each stands quoted within one line, or not at all",
)  # fmt: skip
def log_line_in_a_refused_hello(site: "Site") -> str:
    """A log line inside a hello that is refused."""
    served = site.own
    since = len(served.errors)
    with served.connect() as peer:
        peer.send(wire.hello(EVIL, site.tokens["attacker"], client=EVIL))
        expect(peer.refusal() == "producer_forbidden", "it was not refused")
    return f"{_log_is_whole(served, since)} lines, all of the service's own"


@case(
    cwe=117, vector=FORGES_LOG, surface="ingest", precondition="as above; globs allow attacker-*",
    steps=(
        "the same in a producer's name that is permitted, then an error on that connection; look at log, "
        "metrics and API"
    ),
    expected="quoted in the log and the API; not in the metrics",
)  # fmt: skip
def log_line_in_a_producer(site: "Site") -> str:
    """A log line inside a producer's name."""
    served = site.own
    since = len(served.errors)
    with served.connect() as peer:
        site.join(peer, f"1{EVIL}", client=EVIL)
        peer.send(wire.message(99))
        expect(peer.refusal() == "type", "it was not refused")
    metrics = served.admin.get("/metrics").body
    expect(b"forged" not in metrics and b"owned" not in metrics, "a peer's text stands in the metrics")
    producers = served.admin.get("/api/v1/producers").json()["producers"]
    expect(any(row["name"] == f"attacker-1{EVIL}" for row in producers), "the name came back changed")
    return f"{_log_is_whole(served, since)} lines, all of the service's own; no such metric"


@case(
    cwe=117, vector=FORGES_LOG, surface="ingest", precondition="log lines for people (text)",
    steps="the same on a service that writes text", expected="no line begins with what a peer wrote; no escapes",
)  # fmt: skip
def log_line_as_text(site: "Site") -> str:
    """A log line inside a hello, on a service that writes text for people."""
    served = site.tight
    since = len(served.errors)
    with served.connect() as peer:
        peer.send(wire.hello(EVIL, site.tokens["attacker"], client=EVIL))
        expect(peer.refusal() == "producer_forbidden", "it was not refused")
    lines = served.errors[since:].split(b"\n")
    for line in lines:
        expect(not line.lstrip().startswith(b'{"ts": "2020'), f"a peer's line stands in the log: {line[:120]!r}")
        expect(not any(byte < 0x20 or byte == 0x7F for byte in line), f"control bytes in the log: {line[:160]!r}")
    return f"{len(lines) - 1} lines, none of a peer"


@case(
    cwe=117, vector=FORGES_LOG_EARLY, surface="admin", precondition="level debug",
    steps="ask for paths, hosts and tokens that hold encoded line feeds and log lines",
    expected="no line of a peer in the log",
)  # fmt: skip
def log_line_over_http(site: "Site") -> str:
    """A log line inside an HTTP request."""
    served = site.own
    since = len(served.errors)
    for path in ("/%0a" + FORGED.replace(" ", "%20"), "/api/v1/actors/%0d%0a/table"):
        served.admin.get(path)
    served.admin.get("/", host="x\ty")
    served.admin.post("/api/v1/query", {"sql": f"select 1 -- {EVIL.replace(chr(0x1B), '')}"})
    return f"{_log_is_whole(served, since)} lines, all of the service's own"


@case(
    cwe=779, vector=FORGES_LOG_EARLY, surface="ingest", precondition="a service that logs each refusal",
    steps="be refused 400 times with a producer's name of 1,000 characters",
    expected="repeats are counted: the log grows by less than 100 KiB",
)  # fmt: skip
def log_flooded(site: "Site") -> str:
    """A flood of refusals, to fill the disk with log lines."""
    served = site.own
    since = len(served.errors)
    for _ in range(400):
        with served.connect() as peer:
            peer.send(wire.hello("x" * 1000, site.tokens["attacker"]))
            peer.refusal()
    grown = len(served.errors) - since
    expect(grown < 100 << 10, f"the log grew by {grown >> 10} KiB")
    return f"the log grew by {grown} bytes"


@case(
    cwe=117, vector=FORGES_LOG, surface="admin", short=True, precondition="producers and names chosen by a peer",
    steps="parse the metrics after all of the above, line by line",
    expected="every line is a sample or a comment; labels are words of the program",
)  # fmt: skip
def metrics_labels(site: "Site") -> str:
    """Metrics that a peer would add to, or break."""
    import re

    with site.place.connect() as peer:
        site.join(peer, '2"} 1\nbitactor_ready 0\n#')
    body = site.place.admin.get("/metrics").body.decode()
    sample = re.compile(r'[a-z_]+(\{[a-z_]+="[\w.+-]*"(,[a-z_]+="[\w.+-]*")*\})? [-+0-9.eE]+(Inf|NaN)?')
    lines = [line for line in body.splitlines() if line and not line.startswith("#")]
    wrong = [line for line in lines if not sample.fullmatch(line)]
    expect(not wrong, f"{wrong[:3]}")
    expect(
        lines.count("bitactor_ready 1.0") + lines.count("bitactor_ready 1") == 1,
        "bitactor_ready is there more than once",
    )
    return f"{len(lines)} samples, all well formed"


def _named(site: "Site", peer: "Peer", producer: str, name: str) -> None:
    key = wire.text_key(name)
    peer.send(wire.message(wire.NAME, struct.pack(">Q", key) + wire.text(name)))
    site.admit(peer, producer, (key, 1))
    site.witness.names += 1


@case(
    cwe=150, vector=TERMINAL, surface="cli", precondition="a text key that holds escapes of terminals",
    steps='send it; `bitactor query "from totals"` as a table', expected="no control bytes reach the terminal",
)  # fmt: skip
def terminal_escapes_in_query(site: "Site") -> str:
    """Escapes of terminals in a key's name, shown by `bitactor query`."""
    served = site.own
    with served.connect() as peer:
        producer = site.join(peer, "escapes")
        _named(site, peer, producer, "a\x1b[2J\x1b]0;owned\x07\r\nb\u202e")
    url, token = served.said["admin"], served.directory / "admin.token"
    done = site.run("query", "from totals where name like 'a%'", "--url", url, "--token-file", token)
    expect(done.returncode == 0, f"status {done.returncode}: {done.stderr[-200:]}")
    wrong = [
        character
        for character in done.stdout
        if (ord(character) < 0x20 and character != "\n") or character in "\x7f\x9b\u202e"
    ]
    expect(not wrong, f"{sorted(set(wrong))} reach the terminal")
    return "shown without control characters"


@case(
    cwe=1236, vector=TERMINAL, surface="cli",
    precondition="a text key that begins with =, as formulas of spreadsheets do, and holds a comma and quotes",
    steps="send it; `bitactor query --format csv`; parse it",
    expected="one field with exactly this text: the CSV is data, columns do not shift",
)  # fmt: skip
def csv_fields(site: "Site") -> str:
    """A key's name that would break out of its CSV field."""
    import csv
    import io

    served, name = site.own, '=cmd("x"),1\n"2'
    with served.connect() as peer:
        producer = site.join(peer, "csv")
        _named(site, peer, producer, name)
    url, token = served.said["admin"], served.directory / "admin.token"
    done = site.run(
        "query",
        "select name, n from totals where name like '=%'",
        "--url",
        url,
        "--token-file",
        token,
        "--format",
        "csv",
    )
    rows = list(csv.reader(io.StringIO(done.stdout, newline="")))
    expect(rows == [["name", "n"], [name, "1"]], f"{rows} {done.stderr[-200:]}")
    return "one row with one name"


@case(cwe=89, vector="AV:N/AC:L/PR:L/UI:N/S:U/C:L/I:L/A:N", surface="ingest", precondition="names chosen by a peer",
      steps="send names that are SQL; query the table by name", expected="they come back as they are")  # fmt: skip
def sql_in_a_name(site: "Site") -> str:
    """SQL inside a key's name."""
    name = "'; drop table totals; --"
    with site.own.connect() as peer:
        producer = site.join(peer, "sql")
        _named(site, peer, producer, name)
    answer = site.own.admin.post("/api/v1/query", {"sql": "select name from totals where name like '%drop%'"})
    expect(answer.status == 200 and answer.json()["rows"] == [[name]], f"{answer.status} {answer.body[:200]!r}")
    return "it comes back as it is"
