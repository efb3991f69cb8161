"""Secrets in outputs: tokens, their hashes and keys in logs, answers, errors, command lines and environments."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial import rawwire as wire
from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

LEAKS_LOCAL: Final = "AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N"
LEAKS: Final = "AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N"


def _secrets(site: "Site") -> dict[str, bytes]:
    found = {f"the token of {name}": token.encode() for name, token in site.tokens.items()}
    found |= {
        f"the hash of {name}'s token": hashlib.sha256(token.encode()).hexdigest().encode()
        for name, token in site.tokens.items()
    }
    key = site.server_pair.key_file.read_text().splitlines()
    return found | {"the private key": key[1].encode()}


def _found(site: "Site", text: bytes) -> list[str]:
    return [what for what, secret in _secrets(site).items() if secret in text]


@case(
    cwe=532, vector=LEAKS_LOCAL, surface="ingest", short=True,
    precondition="level debug; good, wrong and refused hellos, HTTP with good and wrong tokens",
    steps="search all that the service wrote to standard error", expected="no token, no hash, no key",
)  # fmt: skip
def in_the_log(site: "Site") -> str:
    """Secrets in the service's log."""
    served = site.own
    with served.connect() as peer:
        site.join(peer, "secrets")
        peer.send(wire.message(99, site.tokens["attacker"].encode()))
        peer.refusal()
    with served.connect() as peer:
        peer.send(wire.hello("honest-2", site.tokens["attacker"], client=f"token={site.tokens['honest']}"))
        peer.refusal()
    for token in (site.tokens["admin"], site.tokens["operator"], "wrong-" + "x" * 20):
        served.admin.get("/metrics", token=token)
    log = served.errors
    told = _found(site, log)
    expect(not told, f"{told} in the log")
    return f"none in {len(log)} bytes"


@case(
    cwe=209, vector=LEAKS, surface="admin", short=True,
    precondition="all that services of the suite have answered so far",
    steps="ask for every page and every error once more; search all answers of both ports",
    expected="no token, no hash, no key, no traceback, no path of the source",
)  # fmt: skip
def in_answers(site: "Site") -> str:
    """Secrets, tracebacks and paths in answers."""
    served = site.own
    for path in (
        "/",
        "/metrics",
        "/openapi.json",
        "/api/v1/statistics",
        "/api/v1/producers",
        "/api/v1/log",
        "/nothing",
        "/api/v1/actors/x/table",
    ):
        served.admin.get(path)
    heard = bytes(served.heard)
    told = _found(site, heard)
    expect(not told, f"{told} in answers")
    for sign in (b"Traceback", b"site-packages", str(Path(__file__).parents[3]).encode()):
        expect(sign not in heard, f"{sign!r} in answers")
    return f"none in {len(heard)} bytes"


@case(
    cwe=214, vector=LEAKS_LOCAL, surface="cli", precondition="services and verbs as the suite starts them",
    steps="read /proc/PID/cmdline of the service; look at the flags of every verb",
    expected="no secret stands there, and there is no flag that would take one",
)  # fmt: skip
def on_the_command_line(site: "Site") -> str:
    """Secrets on the command line."""
    line = Path(f"/proc/{site.own.pid}/cmdline").read_bytes()
    expect(not _found(site, line), "a secret on the command line of the service")
    for verb in ("serve", "send", "query", "config show"):
        text = site.run(*verb.split(), "--help", environ={"COLUMNS": "200"}).stdout
        for flag in ("--token ", "--password", "--secret", "--otlp-headers "):
            expect(flag not in text, f"{verb} has the flag {flag}")
    return "none, and no such flag"


@case(
    cwe=526, vector=LEAKS_LOCAL, surface="admin", precondition="BITACTOR_ variables that hold a secret",
    steps="run a query; read the environment of its process", expected="no BITACTOR_ variable is handed on",
)  # fmt: skip
def in_the_environment_of_queries(site: "Site") -> str:
    """Secrets in the environment of the process that runs SQL."""
    import threading
    import time

    served, seen = site.own, set()
    thread = threading.Thread(
        target=lambda: served.admin.post(
            "/api/v1/query", {"sql": "select count(*) from range(1000000000) where hash(range) = 1"}
        )
    )
    thread.start()
    due = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < due:
        for child in Path(f"/proc/{served.pid}/task/{served.pid}/children").read_text().split():
            try:
                lines = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            seen |= {line.partition(b"=")[0] for line in lines}
        time.sleep(0.02)
    thread.join()
    wrong = {name for name in seen if name.startswith(b"BITACTOR_")}
    expect(seen != set() and not wrong, f"{wrong or 'no process seen'}")
    return f"{len(seen)} variables, none of BitActor's"


_HEADERS: Final = "authorization=Bearer very-secret-of-the-collector"


@case(
    cwe=200, vector=LEAKS_LOCAL, surface="cli",
    precondition="telemetry.otlp_headers is set, from the environment and from a file",
    steps="config show, as table and as JSON; config check; config show with another setting wrong",
    expected="(set, not shown); the value nowhere",
)  # fmt: skip
def in_config_show(site: "Site") -> str:
    """A secret setting, shown."""
    file = site.new_directory("config") / "headers"
    file.write_text(_HEADERS)
    for environ in (
        {"BITACTOR_TELEMETRY__OTLP_HEADERS": _HEADERS},
        {"BITACTOR_TELEMETRY__OTLP_HEADERS_FILE": str(file)},
    ):
        for verb in (
            ("config", "show"),
            ("config", "show", "--json"),
            ("config", "check"),
            ("config", "show", "--log-durability", "wrong"),
        ):
            done = site.run(*verb, environ=environ)
            expect("very-secret" not in done.stdout + done.stderr, f"{verb} shows it")
    done = site.run("config", "show", "--json", environ={"BITACTOR_TELEMETRY__OTLP_HEADERS": _HEADERS})
    expect(json.loads(done.stdout)["telemetry.otlp_headers"]["value"] == "(set, not shown)", "it is not said to be set")
    return "(set, not shown)"


@case(
    cwe=209, vector=LEAKS_LOCAL, surface="cli", precondition="files that should hold settings hold secrets",
    steps=(
        "give a token file as --config, as --auth-file and as a certificate; an auth file with a token "
        "instead of its hash"
    ),
    expected="an error that does not quote the secret",
)  # fmt: skip
def in_errors_of_files(site: "Site") -> str:
    """Secrets quoted by errors of files."""
    directory = site.new_directory("errors")
    secret = "very-secret-token-0123456789abcdef"
    token = directory / "token"
    token.touch(0o600)
    token.write_text(f"token = {secret}\n")
    auth = directory / "auth.toml"
    auth.write_text(f'[[identity]]\nname = "x"\ntoken_sha256 = "{secret}"\n')
    doubled = directory / "doubled.toml"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    doubled.write_text("".join(f'[[identity]]\nname = "{n}"\ntoken_sha256 = "{digest}"\n' for n in "xy"))
    for flags, hidden in (
        (("--config", token), secret), (("--auth-file", token), secret), (("--auth-file", auth), secret),
        (("--auth-file", doubled), digest),
        (("--tls-cert-file", token, "--tls-key-file", token), secret),
    ):  # fmt: skip
        done = site.run("config", "check", *flags)
        expect(
            done.returncode == 2 and hidden not in done.stdout + done.stderr,
            f"{flags[0]}: {done.returncode} {done.stderr[-200:]}",
        )
    return "five errors, none quotes it"


_PROBE: Final = """
import bitactor as ba
secret = "very-secret-token-0123456789abcdef"
try:
    ba.Client(f"localhost:{PORT}", producer="attacker-x", token=secret, ca_file=CA, connect_s=3)
except Exception as error:
    import traceback
    print("REFUSED", repr(error), "".join(traceback.format_exception(error)))
client = ba.Client(f"localhost:{PORT}", producer="attacker-repr", token=TOKEN, ca_file=CA)
print(repr(client), str(client), repr(client._target))
client.close()
"""


@case(
    cwe=209, vector=LEAKS_LOCAL, surface="client",
    precondition="a client with a wrong token, and one with a good one",
    steps="print the error with its traceback, and the client's repr", expected="no token",
)  # fmt: skip
def in_the_client(site: "Site") -> str:
    """Secrets in errors and reprs of the client."""
    served = site.own
    values = (
        f"PORT = {served.address[1]}\nCA = {str(site.authority.file)!r}\nTOKEN = open({str(_token(site))!r}).read()\n"
    )
    done = site.python(values + _PROBE)
    expect(
        "REFUSED" in done.stdout and done.returncode == 0,
        f"{done.returncode} {done.stdout[-200:]} {done.stderr[-300:]}",
    )
    site.witness.joined("attacker-repr")
    said = done.stdout.replace('secret = "very-secret-token-0123456789abcdef"', "") + done.stderr
    expect("very-secret" not in said and site.tokens["attacker"] not in said, "a token was printed")
    return "no token"


def _token(site: "Site") -> Path:
    file = site.new_directory("token") / "token"
    file.touch(0o600)
    file.write_text(site.tokens["attacker"])
    return file


@case(
    cwe=312, vector=LEAKS_LOCAL, surface="files", precondition="a service that has run",
    steps="search every file of its data directory for tokens and hashes",
    expected="none: the log holds producers and identities, no secrets",
)  # fmt: skip
def in_the_data_directory(site: "Site") -> str:
    """Secrets in log and snapshots."""
    served = site.own
    site.witness.send()
    served.admin.post("/api/v1/snapshot", {})
    count = 0
    for folder, _, names in os.walk(served.data):
        for name in names:
            told = _found(site, Path(folder, name).read_bytes())
            told = [what for what in told if "private key" not in what]
            expect(not told, f"{told} in {name}")
            count += 1
    return f"none in {count} files"
