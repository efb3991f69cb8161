"""Exhaustion of the admin interface: connections, heads and bodies that do not end."""

import contextlib
import time
from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    import socket

    from bitactor.validation.adversarial.rawhttp import Web
    from bitactor.validation.adversarial.site import Site

ANYBODY: Final = "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"


def _head(web: "Web") -> str:
    """The head of a query, without how long its body is."""
    lines = ("POST /api/v1/query HTTP/1.1", f"Host: {web.host}", f"Authorization: Bearer {web.token}")
    return "\r\n".join((*lines, "Content-Type: application/json", ""))


@case(
    cwe=400, vector=ANYBODY, surface="admin", precondition="256 connections at most",
    steps="open 300 to the admin port and say nothing; then wait for the head's limit",
    expected="those over 256 get 503; all are ended with 408; then it answers",
)  # fmt: skip
def admin_connections(site: "Site") -> str:
    """More connections than the admin interface has."""
    web = site.own.admin
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(web.connect()) for _ in range(300)]
        time.sleep(1.0)
        busy = 0
        for one in held[256:]:
            one.settimeout(10)
            with contextlib.suppress(OSError):
                busy += b"503" in one.recv(200)
        site.witness.send()
        seconds = _gone_with_answer(held[:256], 25)
    expect(busy >= 40, f"{busy} of 44 were told 503")
    return f"{busy} were told 503; the others were ended after {seconds:.1f} s"


def _gone_with_answer(held: "list[socket.socket]", seconds: float) -> float:
    begin = time.monotonic()
    for one in held:
        one.settimeout(max(0.1, seconds - (time.monotonic() - begin)))
        try:
            while one.recv(1000):
                pass
        except TimeoutError:
            expect(False, f"still open after {seconds:g} s")
        except OSError:
            pass
    return time.monotonic() - begin


@case(cwe=400, vector=ANYBODY, surface="admin", precondition="a head may take 10 s",
      steps="send a header every second", expected="ended within 10 s and some: headers do not prolong it")  # fmt: skip
def slow_head(site: "Site") -> str:
    """A request's head that never ends."""
    web = site.own.admin
    begin = time.monotonic()
    with web.connect() as one:
        one.sendall(f"GET /livez HTTP/1.1\r\nHost: {web.host}\r\n".encode())
        one.settimeout(0.5)
        answer = b""
        while time.monotonic() - begin < 25:
            try:
                one.sendall(b"X-Slow: 1\r\n")
                answer = one.recv(300)
                break
            except TimeoutError:
                continue
            except OSError:
                break
    seconds = time.monotonic() - begin
    expect(seconds < 24, f"open after {seconds:.0f} s")
    return f"ended after {seconds:.1f} s with {answer[:28]!r}"


@case(cwe=400, vector=ANYBODY, surface="admin", precondition="a body may take 10 s, with a good token",
      steps="announce a body of 100 bytes, send one a second", expected="408")  # fmt: skip
def slow_body(site: "Site") -> str:
    """A request's body that never ends."""
    web = site.own.admin
    begin = time.monotonic()
    with web.connect() as one:
        head = _head(web)
        one.sendall(f"{head}Content-Length: 100\r\n\r\n".encode())
        one.settimeout(0.5)
        answer = b""
        while time.monotonic() - begin < 25 and not answer:
            try:
                one.sendall(b" ")
                answer = one.recv(300)
            except TimeoutError:
                continue
            except OSError:
                break
    expect(b" 408 " in answer, f"{answer[:60]!r} after {time.monotonic() - begin:.1f} s")
    return f"408 after {time.monotonic() - begin:.1f} s"


@case(
    cwe=770, vector=ANYBODY, surface="admin", steps="announce a body of 10 GiB; send 70 KiB in chunks",
    expected="413 before it is read", remote=True,
)  # fmt: skip
def large_body(site: "Site") -> str:
    """Bodies larger than allowed."""
    web = site.place.admin
    head = _head(web)
    announced = web.raw(f"{head}Content-Length: {10 << 30}\r\n\r\n".encode(), timeout_s=10)
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    chunked = web.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 18, timeout_s=10)
    expect(announced.status == 413 and chunked.status == 413, f"statuses {announced.status}, {chunked.status}")
    return "413 for both"
