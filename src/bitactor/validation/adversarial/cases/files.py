"""Links, modes and damage of files: what others may read, what a link leads to, what a changed byte does."""

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial.cases.loading import _stopped_data
from bitactor.validation.adversarial.registry import case, expect
from bitactor.validation.adversarial.service import APP

if TYPE_CHECKING:
    import subprocess

    from bitactor.validation.adversarial.site import Site

READS_LOCAL: Final = "AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N"
WRITES_LOCAL: Final = "AV:L/AC:L/PR:L/UI:N/S:U/C:N/I:H/A:H"
BELIEVES: Final = "AV:L/AC:H/PR:L/UI:N/S:U/C:N/I:H/A:N"
UNPACKS: Final = "AV:L/AC:L/PR:N/UI:R/S:U/C:N/I:H/A:H"


def _serve(site: "Site", data: Path, *flags: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return site.run(
        "serve", APP, "--data-dir", data, "--ingest-port", "0", "--admin-port", "0", *flags, cwd=cwd, timeout_s=60
    )


@case(cwe=732, vector=READS_LOCAL, surface="files", short=True, precondition="a private key with mode 0644",
      steps="serve with it", expected="refused, with chmod 600 as advice")  # fmt: skip
def key_read_by_all(site: "Site") -> str:
    """A private key that everybody can read."""
    directory = site.new_directory("modes")
    key = directory / "server.key"
    key.write_bytes(site.server_pair.key_file.read_bytes())
    key.chmod(0o644)
    done = _serve(site, directory / "data", "--tls-cert-file", site.server_pair.cert_file, "--tls-key-file", key)
    expect(done.returncode == 2 and "chmod 600" in done.stderr, f"status {done.returncode}: {done.stderr[-300:]}")
    return "status 2, with advice"


@case(
    cwe=732, vector=READS_LOCAL, surface="files",
    precondition="a token file of the admin interface with mode 0604, and one with 0602", steps="serve with it",
    expected="refused",
)  # fmt: skip
def token_read_by_all(site: "Site") -> str:
    """A token file that everybody can read, or write."""
    directory = site.new_directory("modes")
    token = directory / "token"
    token.write_text("x" * 43)
    for mode in (0o604, 0o602):
        token.chmod(mode)
        done = _serve(site, directory / "data", "--admin-token-file", token)
        expect(
            done.returncode == 2 and "chmod 600" in done.stderr,
            f"{mode:o}: status {done.returncode}: {done.stderr[-300:]}",
        )
    return "status 2 for both"


@case(
    cwe=276, vector=READS_LOCAL, surface="files",
    precondition="umask 0, a data directory of mode 0755 that is there already",
    steps="serve, send, snapshot, stop; look at the modes of all files",
    expected="log, snapshots, keys and token are for their owner alone; nothing can be written by others",
)  # fmt: skip
def modes_under_umask_0(site: "Site") -> str:
    """Files made under umask 0."""
    before = os.umask(0)
    try:
        served = site.serve(
            "modes",
            (
                "--log-durability",
                "normal",
            ),
        )
        witness = site.witness_of("modes")
        witness.send()
        served.admin.post("/api/v1/snapshot", {})
    finally:
        os.umask(before)
    seen, wrong = 0, []
    for folder, _, names in os.walk(served.data):
        for name in names:
            mode = stat.S_IMODE(Path(folder, name).stat().st_mode)
            seen += 1
            if mode & 0o022 or (mode & 0o044 and not name.endswith(".pem")):
                wrong.append(f"{name} {mode:o}")
    expect(not wrong, f"{', '.join(wrong)}")
    return f"{seen} files, for their owner alone"


@case(
    cwe=276, vector=READS_LOCAL, surface="files", precondition="umask 0",
    steps="`certs ca`, `certs server`, `certs client`, `certs token`", expected="keys and token have mode 0600",
)  # fmt: skip
def keys_made_under_umask_0(site: "Site") -> str:
    """Keys and tokens made under umask 0."""
    directory = site.new_directory("certs")
    before = os.umask(0)
    try:
        for verb in (("ca",), ("server", "localhost"), ("client", "somebody")):
            done = site.run("certs", *verb, "--dir", directory)
            expect(done.returncode == 0, f"{verb}: {done.stderr[-200:]}")
        site.run("certs", "token", directory / "a.token")
    finally:
        os.umask(before)
    secrets = [path for path in directory.iterdir() if path.suffix in {".key", ".token"}]
    wrong = [path.name for path in secrets if stat.S_IMODE(path.stat().st_mode) != 0o600]
    expect(len(secrets) == 4 and not wrong, f"{wrong} of {[path.name for path in secrets]}")
    return "0600 for all four"


@case(
    cwe=22, vector=WRITES_LOCAL, surface="cli",
    steps=(
        "`certs client ../../evil`, `certs server --file /x`; `certs token` and `certs ca` over what is "
        "there"
    ),
    expected="refused; nothing is written elsewhere or over",
)  # fmt: skip
def names_of_certificates(site: "Site") -> str:
    """Names of certificates that lead elsewhere, or are there already."""
    directory = site.new_directory("certs")
    site.run("certs", "ca", "--dir", directory)
    kept = {path.name: path.read_bytes() for path in directory.iterdir()}
    for verb in (
        ("client", "../../evil"),
        ("client", "/evil"),
        ("server", "localhost", "--file", "../evil"),
        ("client", "a\n../b"),
        ("ca",),
    ):
        done = site.run("certs", *verb, "--dir", directory)
        expect(
            done.returncode in {1, 2} and "Traceback" not in done.stderr,
            f"{verb}: {done.returncode} {done.stderr[-200:]}",
        )
    done = site.run("certs", "token", directory / "ca.pem")
    expect(done.returncode == 1, f"token: {done.returncode}")
    expect({path.name: path.read_bytes() for path in directory.iterdir()} == kept, "files were changed")
    return "all refused, nothing written"


@case(
    cwe=59, vector=WRITES_LOCAL, surface="files",
    precondition="a data directory with `lock` as a symbolic link to another file of the user",
    steps="`log compact`, which takes the lock as serve does",
    expected="the link is not followed: the other file keeps its content",
)  # fmt: skip
def lock_is_a_link(site: "Site") -> str:
    """A lock file that is a symbolic link to something else."""
    directory = site.new_directory("links")
    data = _stopped_data(site, directory)
    victim = directory / "precious"
    victim.write_text("precious content")
    (data / "lock").unlink(missing_ok=True)
    (data / "lock").symlink_to(victim)
    done = site.run("log", "compact", data)
    expect(victim.read_text() == "precious content", f"it was overwritten: {victim.read_text()[:60]!r}")
    expect(
        done.returncode in {1, 2} and "Traceback" not in done.stderr, f"status {done.returncode} {done.stderr[-200:]}"
    )
    return f"kept; {done.stderr.strip().splitlines()[-1][-100:].replace(str(site.directory), '…')}"


@case(
    cwe=59, vector=WRITES_LOCAL, surface="files",
    precondition="dev/token and dev/server.key as dangling symbolic links", steps="serve",
    expected="no secret is written to where they lead",
)  # fmt: skip
def secrets_through_links(site: "Site") -> str:
    """Secrets written through symbolic links."""
    directory = site.new_directory("links")
    dev = directory / "data" / "dev"
    dev.mkdir(parents=True, mode=0o700)
    for name in ("token", "server.key", "ca.key"):
        (dev / name).symlink_to(directory / f"stolen-{name}")
    done = _serve(site, directory / "data")
    stolen = [path.name for path in directory.iterdir() if path.name.startswith("stolen")]
    expect(not stolen, f"{stolen} were written")
    expect(
        done.returncode in {1, 2} and "Traceback" not in done.stderr, f"status {done.returncode} {done.stderr[-300:]}"
    )
    return "nothing is written through them"


@case(cwe=59, vector=WRITES_LOCAL, surface="files", precondition="the log as a symbolic link to another SQLite file",
      steps="serve", expected="refused, or nothing of the other file is changed")  # fmt: skip
def log_is_a_link(site: "Site") -> str:
    """A log that is a symbolic link to another database."""
    import apsw

    directory = site.new_directory("links")
    victim, data = directory / "other.sqlite", directory / "data"
    connection = apsw.Connection(str(victim))
    connection.execute("create table precious (a)")
    connection.close()
    content = victim.read_bytes()
    data.mkdir(0o700)
    (data / "log.sqlite").symlink_to(victim)
    done = _serve(site, data)
    expect(
        done.returncode == 1 and victim.read_bytes() == content,
        f"status {done.returncode}; changed: {victim.read_bytes() != content}",
    )
    return done.stderr.strip().splitlines()[-1][-120:].replace(str(site.directory), "…")


@case(cwe=667, vector=WRITES_LOCAL, surface="files", precondition="a running service",
      steps="serve the same data directory again; `log compact` it", expected="refused, naming who has it")  # fmt: skip
def second_process(site: "Site") -> str:
    """A second process on one data directory."""
    served = site.own
    done = _serve(site, served.data)
    expect(
        done.returncode == 1 and f"process {served.pid}" in done.stderr,
        f"status {done.returncode} {done.stderr[-300:]}",
    )
    done = site.run("log", "compact", served.data)
    expect(done.returncode == 1, f"compact: status {done.returncode}")
    return "both refused, with its process named"


# --- damage ---


def _changed(path: Path, at: int) -> bytes:
    before = path.read_bytes()
    at %= len(before)
    path.write_bytes(before[:at] + bytes([before[at] ^ 0x40]) + before[at + 1 :])
    return before


@case(
    cwe=354, vector=BELIEVES, surface="files", precondition="a data directory with two snapshots",
    steps="change a byte of the newest snapshot, at 12 places of the seed; `log verify` each time",
    expected="each is reported, status 1",
)  # fmt: skip
def snapshot_damaged(site: "Site") -> str:
    """A changed byte in a snapshot."""
    data = _stopped_data(site, site.new_directory("damage"))
    snapshot = max((data / "snapshots").glob("*.snapshot"))
    size = snapshot.stat().st_size
    for at in [0, 5, size - 10, *(site.random.randrange(size) for _ in range(3))]:
        before = _changed(snapshot, at)
        done = site.run("log", "verify", data)
        snapshot.write_bytes(before)
        expect(
            done.returncode == 1 and "Traceback" not in done.stderr,
            f"byte {at}: status {done.returncode}: {(done.stdout + done.stderr)[-200:]}",
        )
    return "reported for each of 6 places"


@case(
    cwe=354, vector=BELIEVES, surface="files",
    precondition="a service that was killed, two snapshots and the log behind the first",
    steps="change a byte in the newest snapshot's section of states, start again",
    expected="the older one is used; the state is exactly the same",
)  # fmt: skip
def snapshot_damaged_before_a_start(site: "Site") -> str:
    """A start from a damaged snapshot."""
    served, witness = site.own, site.witness
    for _ in range(2):
        witness.send()
        expect(served.admin.post("/api/v1/snapshot", {}).status == 200, "no snapshot")
    witness.send()
    served.kill()
    snapshot = max((served.data / "snapshots").glob("*.snapshot"))
    content = snapshot.read_bytes()
    _changed(snapshot, content.index(b"SECT", 100) + 200)
    served = site.own
    witness.place = served
    return "started; the check afterwards compares all state"


@case(
    cwe=354, vector=BELIEVES, surface="files", precondition="a stopped log",
    steps="change a byte within records, at 6 places; serve and verify",
    expected="the damage is named and nothing is skipped: status 1",
)  # fmt: skip
def record_damaged(site: "Site") -> str:
    """A changed byte in a record of the log."""
    import apsw

    data = _stopped_data(site, site.new_directory("damage"))
    log = data / "log.sqlite"
    connection = apsw.Connection(str(log))
    records = connection.execute("select sequence, record from record where count > 0 order by sequence").fetchall()
    connection.close()
    for _ in range(3):
        sequence, record = site.random.choice(records)
        assert isinstance(record, bytes)
        changed = bytearray(record)
        changed[site.random.randrange(len(changed))] ^= 1 << site.random.randrange(8)
        connection = apsw.Connection(str(log))
        connection.execute("update record set record = ? where sequence = ?", (bytes(changed), sequence))
        connection.close()
        done = site.run("log", "verify", data)
        connection = apsw.Connection(str(log))
        connection.execute("update record set record = ? where sequence = ?", (record, sequence))
        connection.close()
        expect(done.returncode == 1, f"record {sequence}: verify says {done.returncode}: {done.stdout[-200:]}")
        expect("Traceback" not in done.stderr, done.stderr[-300:])
    return "reported each time"


@case(cwe=354, vector=BELIEVES, surface="files", precondition="a stopped log",
      steps="remove a record from its middle; then exchange two", expected="verify: status 1")  # fmt: skip
def record_removed(site: "Site") -> str:
    """Records removed or exchanged."""
    import apsw

    for _ in range(6):
        site.witness.send()
    data = _stopped_data(site, site.new_directory("damage"))
    log = data / "log.sqlite"
    good = log.read_bytes()
    following = "select r.record from record r where r.sequence = record.sequence + 1"
    for sql in (
        "delete from record where sequence = ?",
        f"update record set record = ({following}) where sequence = ?",  # noqa: S608 (constants)
    ):
        connection = apsw.Connection(str(log))
        sequences = [row[0] for row in connection.execute("select sequence from record order by sequence")]
        connection.execute(sql, (sequences[len(sequences) // 2],))
        connection.close()
        done = site.run("log", "verify", data)
        log.write_bytes(good)
        expect(done.returncode == 1, f"verify: status {done.returncode}")
    return "verify: status 1 for both"


# --- backups ---


@case(
    cwe=22, vector=UNPACKS, surface="cli", precondition="a .tar made by somebody else",
    steps=(
        "`log restore` archives with ../evil, /evil, a link to outside with a file behind it, a device, a "
        "hard link"
    ),
    expected="refused; nothing is written outside",
)  # fmt: skip
def backup_that_writes_elsewhere(site: "Site") -> str:
    """A backup whose members lead elsewhere."""
    directory = site.new_directory("tar")
    target = directory / "in" / "side" / "data"
    target.parent.mkdir(parents=True)
    before = sorted(path for path in directory.rglob("*"))
    made: list[list[tarfile.TarInfo]] = []
    for name in ("../../evil", str(directory / "evil")):
        made.append([_member(name)])
    link = _member("snapshots", tarfile.SYMTYPE, str(directory))
    made.append([link, _member("snapshots/evil")])
    made.append([_member("log.sqlite", tarfile.LNKTYPE, "/etc/passwd")])
    made.append([_member("log.sqlite", tarfile.SYMTYPE, "/etc/passwd")])
    made.append([_member("log.sqlite", tarfile.FIFOTYPE)])
    for at, members in enumerate(made):
        archive = site.new_directory("archive") / f"{at}.tar"
        with tarfile.open(archive, "w") as tar:
            for member in members:
                tar.addfile(member, io.BytesIO(b"evil"))
        done = site.run("log", "restore", archive, target, timeout_s=60)
        expect(
            done.returncode in {1, 2} and "Traceback" not in done.stderr,
            f"{at}: {done.returncode} {done.stderr[-300:]}",
        )
        after = sorted(path for path in directory.rglob("*"))
        expect(after == before, f"{at}: written: {[str(path) for path in after if path not in before]}")
    return f"{len(made)} archives refused, nothing written"


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = 4 if kind == tarfile.REGTYPE else 0
    return member


@case(
    cwe=354, vector=BELIEVES, surface="cli", precondition="a backup as .tar, changed by somebody",
    steps="change a byte in the middle of it; `log restore`",
    expected="refused; no data directory of that name is left",
)  # fmt: skip
def backup_damaged(site: "Site") -> str:
    """A backup that was changed."""
    site.witness.send()
    served = site.own
    directory = site.new_directory("backup")
    archive = directory / "b.tar"
    done = site.run("log", "backup", archive, served.data)
    expect(done.returncode == 0, f"backup: {done.stderr[-200:]}")
    content = archive.read_bytes()
    at = content.index(b"BAF1") + 70 if b"BAF1" in content else len(content) // 2
    archive.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    done = site.run("log", "restore", archive, directory / "data")
    expect(
        done.returncode == 1 and not (directory / "data").exists(), f"status {done.returncode}: {done.stderr[-300:]}"
    )
    return done.stderr.strip().splitlines()[0][-140:].replace(str(site.directory), "…")
