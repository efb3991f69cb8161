"""HTTP of the admin interface: framing that two readers understand differently, paths, hosts, pages, methods, SQL."""

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

SMUGGLES: Final = "AV:N/AC:H/PR:N/UI:N/S:C/C:L/I:H/A:N"
STOPS: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"
READS_FILES: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"
BY_A_PAGE: Final = "AV:N/AC:H/PR:N/UI:R/S:U/C:H/I:H/A:N"
PATH: Final = "/api/v1/query"


class Framed(NamedTuple):
    """A request whose framing must be refused. head: between the request line's Host and the body; %H is the host."""

    name: str
    title: str
    cwe: int
    head: bytes
    body: bytes = b""
    line: bytes = b"POST /api/v1/query HTTP/1.1"
    statuses: tuple[int, ...] = (400,)
    vector: str = SMUGGLES
    short: bool = False


_GET: Final = b"GET /livez HTTP/1.1"
_FRAMED: Final = (
    Framed(
        "both_lengths", "Content-Length and Transfer-Encoding", 444,
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
        short=True,
    ),
    Framed(
        "two_lengths", "Two different Content-Lengths", 444, b"Content-Length: 4\r\nContent-Length: 40\r\n",
        b"{}{}" + b" " * 36,
    ),
    Framed("length_negative", "A negative Content-Length", 1284, b"Content-Length: -1\r\n"),
    Framed("length_signed", "A Content-Length with a plus sign", 444, b"Content-Length: +2\r\n", b"{}"),
    Framed("length_hexadecimal", "A Content-Length in hexadecimal", 444, b"Content-Length: 0x2\r\n", b"{}"),
    Framed(
        "length_huge", "A Content-Length of 10**30", 190, b"Content-Length: 1" + b"0" * 30 + b"\r\n",
        statuses=(400, 413), vector=STOPS,
    ),
    Framed(
        "encoding_unknown", "A Transfer-Encoding that nobody knows", 444, b"Transfer-Encoding: xchunked\r\n",
        b"0\r\n\r\n", statuses=(400, 501),
    ),
    Framed(
        "encoding_twice", "Chunked twice", 444, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"0\r\n\r\n", statuses=(400, 501),
    ),
    Framed(
        "chunk_size_signed", "A chunk's size with a minus sign", 444, b"Transfer-Encoding: chunked\r\n",
        b"-1\r\n{}\r\n0\r\n\r\n",
    ),
    Framed(
        "chunk_size_huge", "A chunk's size past 2**64", 190, b"Transfer-Encoding: chunked\r\n",
        b"f" * 25 + b"\r\n{}\r\n0\r\n\r\n", statuses=(400, 413),
    ),
    Framed(
        "chunk_without_end", "A chunk longer than it says", 444, b"Transfer-Encoding: chunked\r\n",
        b"2\r\n{}{}\r\n0\r\n\r\n",
    ),
    Framed("bare_line_feeds", "Lines that end with a bare line feed", 444, b"", line=_GET, short=True),
    Framed(
        "bare_line_feed_in_a_value", "A bare line feed that smuggles a header into a value", 113,
        b"X-A: b\nX-B: c\r\n", line=_GET,
    ),
    Framed("bare_carriage_return", "A bare carriage return in a value", 113, b"X-A: b\rX-B: c\r\n", line=_GET),
    Framed("header_with_blank", "A blank between a header's name and its colon", 444, b"Content-Length : 2\r\n", b"{}"),
    Framed("header_without_colon", "A header without a colon", 20, b"nonsense\r\n", line=_GET),
    Framed("header_with_zero", "A zero in a value", 158, b"X-A: b\0c\r\n", line=_GET),
    Framed(
        "header_folded", "A folded header", 444, b"X-A: b\r\n Transfer-Encoding: chunked\r\n", b"", line=_GET,
        statuses=(400, 200),
    ),
    Framed("two_hosts", "Two Host headers", 444, b"Host: 127.0.0.1\r\n", line=_GET),
    Framed("version_0_9", "HTTP/0.9", 20, b"", line=b"GET /livez"),
    Framed("version_2", "The preface of HTTP/2", 20, b"", line=b"PRI * HTTP/2.0", statuses=(400, 505)),
    Framed("method_with_blank", "A request line with too many parts", 20, b"", line=b"GET /livez /metrics HTTP/1.1"),
    Framed(
        "head_too_long", "A head of 40 KiB", 770, b"X-A: " + b"a" * 40_000 + b"\r\n", line=_GET,
        statuses=(400, 431), vector=STOPS,
    ),
    Framed(
        "headers_too_many", "500 headers", 770, b"".join(b"X-%d: a\r\n" % n for n in range(500)), line=_GET,
        statuses=(400, 431), vector=STOPS,
    ),
)  # fmt: skip


def _register(row: Framed) -> None:
    def attack(site: "Site") -> str:
        web = site.place.admin
        host = b"Host: " + web.host.encode() + b"\r\n"
        authorization = b"Authorization: Bearer " + web.token.encode() + b"\r\nContent-Type: application/json\r\n"
        data = row.line + b"\r\n" + host + authorization + row.head + b"\r\n" + row.body
        if row.name == "bare_line_feeds":
            data = data.replace(b"\r\n", b"\n")
        answer = web.raw(data, timeout_s=5, end=True)
        expect(answer.status in {*row.statuses, 0}, f"status {answer.status} {answer.body[:100]!r}")
        expect(b"HTTP/1.1" not in answer.rest or answer.status == 0, f"a second answer: {answer.rest[:100]!r}")
        return f"status {answer.status}" if answer.status else "the connection's end"

    attack.__name__, attack.__doc__ = row.name, f"{row.title}."
    expected = " or ".join(map(str, row.statuses)) + ", or the connection's end; one answer at most"
    case(
        cwe=row.cwe, vector=row.vector, surface="admin", steps=f"send it with a good token: {row.title[:1].lower()}{row.title[1:]}",
        expected=expected, remote=True, short=row.short,
    )(attack)  # fmt: skip


for _row in _FRAMED:
    _register(_row)


@case(
    cwe=444, vector=SMUGGLES, surface="admin", remote=True,
    steps="send a request with a body that is a request itself, and another behind it",
    expected="two answers: to the first and to the last",
)  # fmt: skip
def pipelined(site: "Site") -> str:
    """A request hidden in the body of another, pipelined."""
    web = site.place.admin
    inner = f"POST /api/v1/erase HTTP/1.1\r\nHost: {web.host}\r\nAuthorization: Bearer {web.token}\r\n\r\n".encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: {web.host}\r\nAuthorization: Bearer {web.token}\r\nContent-Type: application/json\r\n"
    last = f"GET /livez HTTP/1.1\r\nHost: {web.host}\r\nConnection: close\r\n\r\n".encode()
    answer = web.raw(f"{head}Content-Length: {len(inner)}\r\n\r\n".encode() + inner + last, timeout_s=5)
    count = 1 + answer.rest.count(b"HTTP/1.1 ")
    expect(
        answer.status == 400 and count <= 2 and b"erased" not in answer.rest,
        f"{answer.status}, then {answer.rest[:200]!r}",
    )
    return f"status {answer.status}, {count} answers"


@case(
    cwe=22, vector=READS_FILES, surface="admin", short=True, remote=True,
    steps=(
        "ask for ../ as it is, encoded once and twice, with backslashes, with a zero, from /static/ and "
        "from the API"
    ),
    expected="404 or 400; never a file",
)  # fmt: skip
def traversal(site: "Site") -> str:
    """Paths that lead out of where they begin."""
    up = (
        "../" * 8,
        "%2e%2e/" * 8,
        "%2e%2e%2f" * 8,
        "%252e%252e%252f" * 8,
        "..\\" * 8,
        "..%5c" * 8,
        "....//" * 8,
        "..%00/",
        "..;/" * 6,
    )
    for start in ("/static/", "/", "/api/v1/actors/totals/state/"):
        for step in up:
            answer = site.place.admin.get(f"{start}{step}etc/passwd")
            expect(b"root:" not in answer.body, f"{start}{step}: a file was sent")
            expect(answer.status in {400, 404, 0}, f"{start}{step}: status {answer.status} {answer.body[:80]!r}")
    return "404 or 400 for all"


@case(
    cwe=601, vector="AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", surface="admin", remote=True,
    steps="ask for //elsewhere.test/, /livez/, /static/ with hosts and slashes",
    expected="no redirect leads elsewhere",
)  # fmt: skip
def redirects(site: "Site") -> str:
    """Redirects that an attacker's link or Host would steer."""
    seen = set()
    for path in (
        "//elsewhere.test/",
        "/\\elsewhere.test/",
        "/livez/",
        "/metrics/",
        "//elsewhere.test/%2e%2e",
        "/api/v1/kinds/",
    ):
        answer = site.place.admin.get(path)
        where = answer.headers.get("location", "")
        expect(
            "elsewhere.test" not in where.partition("?")[0].removeprefix(f"http://{site.place.admin.host}"),
            f"{path}: to {where}",
        )
        seen.add(answer.status)
    return f"statuses {sorted(seen)}, none leads elsewhere"


@case(cwe=350, vector=BY_A_PAGE, surface="admin", short=True, precondition="the interface listens on loopback",
      steps="ask with the Hosts evil.test, 127.0.0.1.evil.test, localhost@evil.test, an empty one and none",
      expected="421 or 400, also on paths that are open to all")  # fmt: skip
def foreign_host(site: "Site") -> str:
    """A Host that is not this machine: DNS rebinding."""
    web = site.place.admin
    for host in (
        "evil.test",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "localhost@evil.test",
        "",
        "[::ffff:8.8.8.8]",
        "0.0.0.0",
    ):
        for path in ("/livez", "/api/v1/statistics"):
            answer = web.get(path, host=host)
            expect(answer.status in {421, 400}, f"Host {host!r}: {path} answers {answer.status}")
    answer = web.raw(b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")
    expect(answer.status in {400, 421}, f"without Host: {answer.status}")
    return "421 or 400 for all"


@case(
    cwe=644, vector=BY_A_PAGE, surface="admin", precondition="as above",
    steps="ask with X-Forwarded-Host, Forwarded, an absolute URI of another host",
    expected="none of them changes who is meant",
)  # fmt: skip
def forwarded_host(site: "Site") -> str:
    """Headers of proxies that there are not."""
    web = site.place.admin
    for headers in ((("X-Forwarded-Host", "localhost"),), (("Forwarded", "host=localhost"),)):
        answer = web.get("/livez", host="evil.test", headers=headers)
        expect(answer.status in {421, 400}, f"{headers}: {answer.status}")
    answer = web.get("/livez/", headers=(("X-Forwarded-Host", "evil.test"), ("X-Forwarded-Proto", "https")))
    expect("evil.test" not in answer.headers.get("location", ""), f"to {answer.headers.get('location')}")
    answer = web.raw(f"GET http://evil.test/livez HTTP/1.1\r\nHost: {web.host}\r\nConnection: close\r\n\r\n".encode())
    expect(answer.status in {400, 404, 421}, f"absolute URI: {answer.status} {answer.body[:100]!r}")
    return "421, and no redirect there"


@case(
    cwe=352, vector=BY_A_PAGE, surface="admin", short=True, precondition="a browser with access",
    steps=(
        "POST snapshot with Origin of another site, null, of another port; with Sec-Fetch-Site cross-site "
        "and same-site"
    ),
    expected="403; no snapshot is written",
)  # fmt: skip
def foreign_origin(site: "Site") -> str:
    """A page of another site that makes the browser change something."""
    web = site.place.admin
    foreign: tuple[tuple[tuple[str, str], ...], ...] = (
        (("Origin", "http://evil.test"),), (("Origin", "null"),), (("Origin", f"http://{web.host}0"),),
        (("Sec-Fetch-Site", "cross-site"),), (("Sec-Fetch-Site", "same-site"),),
        (("Origin", f"http://{web.host}@evil.test"),),
    )  # fmt: skip
    for headers in foreign:
        answer = web.post("/api/v1/snapshot", {}, headers=headers)
        expect(answer.status == 403, f"{headers}: {answer.status} {answer.body[:100]!r}")
    return "403 foreign_origin for all"


@case(
    cwe=352, vector=BY_A_PAGE, surface="admin", precondition="as above",
    steps="POST erase as a form, as plain text, and as multipart, as pages may without asking",
    expected="415; nothing is erased",
)  # fmt: skip
def simple_request(site: "Site") -> str:
    """Bodies of the types that a page may send without asking first."""
    body = b'{"key": 1000}'
    for type_ in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = site.place.admin.post("/api/v1/erase", body, headers=(("Content-Type", type_),))
        expect(answer.status == 415, f"{type_!r}: {answer.status} {answer.body[:100]!r}")
    return "415 for all"


@case(cwe=942, vector=BY_A_PAGE, surface="admin", remote=True,
      steps="OPTIONS and GET with an Origin of another site", expected="no Access-Control header")  # fmt: skip
def cross_origin_reading(site: "Site") -> str:
    """Reading by a page of another site."""
    headers = (
        ("Origin", "http://evil.test"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization"),
    )
    for method, path in (
        ("OPTIONS", "/api/v1/statistics"),
        ("GET", "/api/v1/statistics"),
        ("GET", "/livez"),
        ("OPTIONS", "/api/v1/erase"),
    ):
        answer = site.place.admin.request(method, path, headers=headers)
        wrong = [name for name in answer.headers if name.startswith("access-control-")]
        expect(not wrong, f"{method} {path}: {wrong}")
    return "no Access-Control header"


@case(
    cwe=650, vector=STOPS, surface="admin", remote=True, short=True,
    steps=(
        "TRACE, CONNECT, PUT, DELETE, PATCH and a method of 2,000 letters on several paths; GET on what "
        "POST changes; overrides"
    ),
    expected="405, 404 or 400; TRACE echoes nothing; nothing changes",
)  # fmt: skip
def methods(site: "Site") -> str:
    """Methods that there are not, and method overrides."""
    web = site.place.admin
    for method in ("TRACE", "CONNECT", "PUT", "DELETE", "PATCH", "X" * 2000):
        for path in ("/livez", "/api/v1/snapshot", "/api/v1/actors/totals/state/1000"):
            answer = web.request(method, path, headers=(("X-Echo", "echo-me"),))
            expect(answer.status in {400, 404, 405, 501}, f"{method[:10]} {path}: {answer.status}")
            expect(b"echo-me" not in answer.body, f"{method} echoes the request")
    for path in ("/api/v1/snapshot", "/api/v1/erase", "/api/v1/producers/forget"):
        answer = web.get(f"{path}?_method=POST", headers=(("X-HTTP-Method-Override", "POST"),))
        expect(answer.status in {404, 405}, f"GET {path}: {answer.status}")
    return "405 or 400 for all"


_CSP: Final = re.compile(r"default-src 'none'")


@case(cwe=1021, vector="AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", surface="admin", remote=True,
      steps="look at the headers of the page, of an API's answer, of 401, 404, 405 and 421",
      expected="a content policy of default-src 'none', nosniff, no framing, no caching of answers")  # fmt: skip
def headers_of_every_answer(site: "Site") -> str:
    """Answers without the headers that keep a browser safe."""
    web = site.place.admin
    answers = {
        "page": web.get("/"), "api": web.get("/api/v1/kinds"), "401": web.get("/api/v1/kinds", token=""),
        "404": web.get("/nothing"), "405": web.request("PUT", "/livez"), "host": web.get("/", host="evil.test"),
    }  # fmt: skip
    for what, answer in answers.items():
        policy = answer.headers.get("content-security-policy", "")
        expect(_CSP.search(policy) is not None and "unsafe" not in policy, f"{what}: policy {policy!r}")
        expect(answer.headers.get("x-content-type-options") == "nosniff", f"{what}: no nosniff")
        expect("frame-ancestors 'none'" in policy, f"{what}: may be framed")
        expect("server" not in answer.headers, f"{what}: says {answer.headers.get('server')}")
    return f"on all of {', '.join(answers)}"


@case(
    cwe=79, vector="AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", surface="admin", remote=True,
    steps="put <script> into paths, filters, hosts, SQL",
    expected="it comes back in JSON with nosniff only, or not at all",
)  # fmt: skip
def script_reflected(site: "Site") -> str:
    """Markup that an answer would give back as a page."""
    script = "<script>alert(1)</script>"
    web = site.place.admin
    answers = [
        web.get(f"/{script}"), web.get(f"/api/v1/actors/{script}/table"), web.get(f"/api/v1/actors/totals/table?filter={script}"),
        web.get("/", host=f"{script}.test"), web.post(PATH, {"sql": script}), web.get("/livez", headers=(("Accept", script),)),
    ]  # fmt: skip
    for answer in answers:
        expect(
            b"<script>alert" not in answer.body or "json" in answer.headers.get("content-type", ""), f"{answer.headers}"
        )
    return f"statuses {[answer.status for answer in answers]}; only as JSON"


@case(
    cwe=113, vector=SMUGGLES, surface="admin", remote=True,
    steps="put encoded CR LF and a header into paths and parameters", expected="no answer has that header",
)  # fmt: skip
def response_split(site: "Site") -> str:
    """CR LF in what an answer gives back."""
    for path in (
        "/livez%0d%0aX-Evil:%201/",
        "/api/v1/actors/x%0d%0aX-Evil:1/table",
        "/api/v1/actors/totals/table?sort=%0d%0aX-Evil:1",
    ):
        answer = site.place.admin.get(path)
        expect("x-evil" not in answer.headers, f"{path}: {answer.headers}")
    return "no such header"


@case(
    cwe=20, vector=STOPS, surface="admin", remote=True,
    steps="ask for columns, filters, sorts, limits and keys that cannot be",
    expected="400 or 404 with a reason, never 500",
)  # fmt: skip
def parameters(site: "Site") -> str:
    """Parameters that cannot be."""
    table = "/api/v1/actors/totals/table"
    asked = [
        f"{table}?columns=__class__", f"{table}?filter=n%3E=" + "9" * 5000, f"{table}?filter=n==1", f"{table}?filter=n>nan",
        f"{table}?limit=-1", f"{table}?limit=99999999999999999999", f"{table}?limit=1e3", f"{table}?sort=--n", f"{table}?sort=%00",
        f"{table}?filter=n>1;drop", f"{table}?integers=maybe", "/api/v1/actors/totals/state/" + "9" * 400,
        "/api/v1/actors/totals/state/-1", "/api/v1/actors/totals/state/%ff%fe", "/api/v1/actors/%2e%2e/table",
        "/api/v1/actors/totals/state/" + "%F0%9F%92%A9" * 300, f"{table}?filter=" + "n>1&filter=" * 500 + "n>1",
        f"{table}?filter=n>99999999999999999999999", f"{table}?filter=key>=-1", f"{table}?filter=n>=1e400",
    ]  # fmt: skip
    statuses = set()
    for path in asked:
        answer = site.place.admin.get(path)
        expect(answer.status not in {500, 0}, f"{path[:120]}: {answer.status} {answer.body[:120]!r}")
        statuses.add(answer.status)
    return f"statuses {sorted(statuses)}"


@case(
    cwe=20, vector=STOPS, surface="admin", remote=True,
    steps=(
        "POST bodies: nested 100,000 deep, numbers of 5,000 digits, NaN, half a character, doubled members, "
        "arrays, 64 KiB and a byte"
    ),
    expected="400 or 413, never 500",
)  # fmt: skip
def bodies(site: "Site") -> str:
    """Bodies that are hard to parse."""
    given = [
        b"[" * 30_000, b'{"a":' * 9_000, b'{"sql": "select 1", "limit": 1' + b"0" * 5000 + b"}", b'{"sql": NaN}', b'{"sql": "\\ud800"}',
        b'{"sql": "a", "sql": 5}', b"[]", b"null", b'"text"', b"\xff\xfe{}", b'{"sql": ' + b" " * 65_530 + b"}", b'{"sql": "select \\u0000"}',
        b'{"sql": true}', b'{"sql": "select 1", "limit": true}', b'{"sql": "select 1", "limit": -1}', b'{"sql": "select 1", "evil": 1}', b"",
    ]  # fmt: skip
    statuses = set()
    for body in given:
        answer = site.place.admin.post(PATH, body)
        expect(answer.status in {400, 413}, f"{body[:40]!r}: {answer.status} {answer.body[:120]!r}")
        statuses.add(answer.status)
    for path, body in (("/api/v1/erase", b'{"key": 1' + b"0" * 5000 + b"}"), ("/api/v1/erase", b'{"key": -1}'), ("/api/v1/erase", b'{"key": 1.5}'),
                       ("/api/v1/producers/forget", b'{"id": "' + b"9" * 5000 + b'"}'), ("/api/v1/producers/forget", b'{"id": -1}')):  # fmt: skip
        answer = site.place.admin.post(path, body)
        expect(answer.status in {400, 404}, f"{path} {body[:40]!r}: {answer.status} {answer.body[:120]!r}")
    return f"statuses {sorted(statuses)}"


@case(
    cwe=444, vector=STOPS, surface="admin", remote=True,
    steps="ask to upgrade to websocket and h2c, and to continue with a body that does not come",
    expected="answered as HTTP/1.1, or refused",
)  # fmt: skip
def upgrades(site: "Site") -> str:
    """Upgrades to other protocols."""
    web = site.place.admin
    statuses = []
    for upgrade in ("websocket", "h2c", "TLS/1.3"):
        lines = f"GET /livez HTTP/1.1\r\nHost: {web.host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQ\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        answer = web.raw(lines.encode(), timeout_s=5, end=True)
        expect(answer.status != 101, f"{upgrade}: the protocol was changed")
        statuses.append(answer.status)
    return f"statuses {statuses}"
