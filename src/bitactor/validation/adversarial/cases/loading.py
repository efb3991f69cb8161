"""Unsafe loading: files that carry programs, or that would be run, parsed with more power than needed, or believed."""

import ast
import os
import pickle
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bitactor.validation.adversarial.registry import NotRun, case, expect
from bitactor.validation.adversarial.service import APP

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

RUNS_LOCAL: Final = "AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"
RUNS_FILE: Final = "AV:L/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H"
STOPS_LOCAL: Final = "AV:L/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H"
_LOADERS: Final = {
    "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "yaml", "joblib", "pandas",
}  # fmt: skip
_RUNNERS: Final = {"eval", "exec", "compile", "__import__"}
# Code that is run on purpose: a handler with BITACTOR_JIT=off, compiled from its checked source.
_ON_PURPOSE: Final = {"actors/interpret.py", "actors/source.py", "cli/apps.py"}


class _Evil:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def _payload(site: "Site") -> tuple[bytes, Path]:
    mark = site.new_directory("pickled") / "was-run"
    return pickle.dumps(_Evil(mark)), mark


@case(
    cwe=502, vector=RUNS_LOCAL, surface="library", short=True, steps="parse every module of the installed package",
    expected=(
        "no pickle, marshal, shelve or yaml; no os.system or shell=True; eval and exec only for an app's "
        "own handlers"
    ),
)  # fmt: skip
def in_the_source(_: "Site") -> str:
    """Loaders and runners in the source."""
    root = Path(__file__).parents[3]
    found, count = [], 0
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root).as_posix()
        if where.startswith("validation/"):
            continue  # it attacks
        count += 1
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.partition(".")[0] in _LOADERS for name in names):
                found.append(f"{where}:{getattr(node, 'lineno', 0)} imports {names}")
            if isinstance(node, ast.Call):
                runs = isinstance(node.func, ast.Name) and node.func.id in _RUNNERS and where not in _ON_PURPOSE
                shell = any(
                    k.arg == "shell" or (k.arg == "allow_pickle" and getattr(k.value, "value", True))
                    for k in node.keywords
                )
                if runs or shell or ast.unparse(node.func) in {"os.system", "os.popen"}:
                    found.append(f"{where}:{node.lineno} {ast.unparse(node)[:60]}")
    expect(not found, "; ".join(found[:5]))
    return f"none in {count} modules"


@case(
    cwe=502, vector=RUNS_FILE, surface="cli",
    precondition="a .npy file of objects, whose pickle makes a directory, and an .npz with it",
    steps="`bitactor send` both", expected="refused; nothing is run",
)  # fmt: skip
def pickle_in_npy(site: "Site") -> str:
    """A pickle inside a .npy and an .npz file."""
    payload, mark = _payload(site)
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    file = site.new_directory("npy") / "evil.npy"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload
    file.write_bytes(content)
    archive = file.with_suffix(".npz")
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("key.npy", content)
        opened.writestr("value.npy", content)
    served = site.own
    token = served.directory / "attacker.token"
    token.touch(0o600)
    token.write_text(site.tokens["attacker"])
    said = []
    for given in ((archive, "--kind", "trade", "--key", "key", "--value", "value"), (file,)):
        done = site.run("send", *given, "--to", f"localhost:{served.address[1]}", "--producer", "attacker-npy",
                        "--token-file", token, "--ca-file", site.authority.file)  # fmt: skip
        _maybe_joined(site, "attacker-npy")
        expect(not mark.exists(), "the pickle was run")
        expect(
            done.returncode in {1, 2} and "Traceback" not in done.stderr,
            f"status {done.returncode}: {done.stderr[-300:]}",
        )
        said.append(done.stderr.strip().splitlines()[-1][:120].replace(str(site.directory), "…"))
    return "; ".join(said)


def _maybe_joined(site: "Site", producer: str) -> None:
    rows = site.own.admin.get("/api/v1/producers").json()["producers"]
    if any(row["name"] == producer for row in rows):
        site.witness.joined(producer)


@case(
    cwe=502, vector=RUNS_LOCAL, surface="files", precondition="a data directory with a snapshot",
    steps="put a pickle in the place of the snapshot; `log verify`, then `log inspect`",
    expected="reported as damaged; nothing is run",
)  # fmt: skip
def pickle_as_snapshot(site: "Site") -> str:
    """A pickle in the place of a snapshot."""
    payload, mark = _payload(site)
    directory = site.new_directory("snapshot")
    data = _stopped_data(site, directory)
    snapshot = max((data / "snapshots").glob("*.snapshot"))
    snapshot.write_bytes(payload)
    done = site.run("log", "verify", data)
    site.run("log", "inspect", data)
    expect(not mark.exists(), "the pickle was run")
    expect(
        done.returncode == 1 and "Traceback" not in done.stderr,
        f"status {done.returncode}: {(done.stdout + done.stderr)[-300:]}",
    )
    return "verify: status 1"


def _stopped_data(site: "Site", directory: Path) -> Path:
    """A copy of the data directory of the service, as a backup gives it: whole."""
    site.witness.send()
    served = site.own
    served.admin.post("/api/v1/snapshot", {})
    done = site.run("log", "backup", directory / "copy", served.data)
    expect(done.returncode == 0, f"backup: {done.stderr[-300:]}")
    done = site.run("log", "restore", directory / "copy", directory / "data")
    expect(done.returncode == 0, f"restore: {done.stderr[-300:]}")
    return directory / "data"


@case(
    cwe=502, vector=RUNS_FILE, surface="files",
    steps=(
        "a settings file and an auth file with tags of YAML, `!!python/object/apply`, and TOML with "
        "__import__"
    ),
    expected="an error of TOML; nothing is run",
)  # fmt: skip
def yaml_as_settings(site: "Site") -> str:
    """Programs in settings."""
    directory = site.new_directory("yaml")
    mark = directory / "was-run"
    texts = (
        f"app: !!python/object/apply:os.mkdir ['{mark}']\n",
        f"app = __import__('os').mkdir('{mark}')\n",
        '[log]\nkind = "{{ 7*7 }}"\n',
    )
    for at, text in enumerate(texts):
        file = directory / f"{at}.toml"
        file.write_text(text)
        for flag in ("--config", "--auth-file"):
            done = site.run("config", "check", flag, file)
            expect(
                done.returncode == 2 and "Traceback" not in done.stderr,
                f"{flag}: {done.returncode} {done.stderr[-200:]}",
            )
            expect("49" not in done.stderr, "a template was evaluated")
    expect(not mark.exists(), "it was run")
    return "status 2 for each"


_COMPILED: Final = """
import bitactor as ba, os, pathlib
app = ba.App("cached")
one = app.kind("one", 1, value="u8")
@app.actor(one, state={"n": "u8"})
def count(state, signal):
    state.n += 1
with ba.Engine(app) as engine:
    engine.send(kind=one, key=1, value=1)
    print("N", engine.state(count, key=1).n)
"""


def _cache(site: "Site", directory: Path) -> "tuple[int, str]":
    done = site.python(_COMPILED, environ={"BITACTOR_CACHE_DIR": str(directory)})
    return done.returncode, done.stdout + done.stderr


def _filled(site: "Site") -> tuple[Path, Path]:
    directory = site.new_directory("cache")
    directory.chmod(0o700)
    status, said = _cache(site, directory)
    files = [file for file in directory.iterdir() if file.is_file()]
    expect(status == 0 and "N 1" in said and len(files) == 1, f"{status}: {said[-300:]} {files}")
    return directory, files[0]


@case(cwe=345, vector=RUNS_LOCAL, surface="files", precondition="a compiled handler in the cache",
      steps="change a byte of its code; run the app", expected="ignored, compiled anew")  # fmt: skip
def cached_code_changed(site: "Site") -> str:
    """Compiled code that was changed on the disk."""
    directory, file = _filled(site)
    good = file.read_bytes()
    file.write_bytes(good[:-100] + bytes([good[-100] ^ 0xFF]) + good[-99:])
    status, said = _cache(site, directory)
    expect(status == 0 and "N 1" in said, f"{status}: {said[-300:]}")
    expect(file.read_bytes() == good, "the changed code stays")
    return "compiled anew"


@case(
    cwe=732, vector=RUNS_LOCAL, surface="files", short=True,
    precondition="a cache directory that everybody may write", steps="run the app",
    expected="not used, with a warning; nothing is written there",
)  # fmt: skip
def cache_writable_by_others(site: "Site") -> str:
    """A cache that others can write."""
    directory = site.new_directory("cache")
    directory.chmod(0o777)
    status, said = _cache(site, directory)
    expect(status == 0 and "N 1" in said and "is not used to cache" in said, f"{status}: {said[-300:]}")
    expect(not list(directory.iterdir()), "something was written there")
    return "not used, with a warning"


@case(cwe=732, vector=RUNS_LOCAL, surface="files", precondition="a cached file that others may write",
      steps="run the app", expected="not loaded")  # fmt: skip
def cached_file_writable_by_others(site: "Site") -> str:
    """A cached file that others can write."""
    directory, file = _filled(site)
    _poison(file)
    file.chmod(0o666)
    status, said = _cache(site, directory)
    expect(status == 0 and "N 1" in said, f"{status}: {said[-300:]}")
    expect(stat.S_IMODE(file.stat().st_mode) & 0o022 == 0, "the file stays writable")
    return "written anew, for its owner alone"


@case(
    cwe=59, vector=RUNS_LOCAL, surface="files",
    precondition="a symbolic link in the cache, to code elsewhere with a right checksum", steps="run the app",
    expected="the link is not followed; the file it leads to is not changed",
)  # fmt: skip
def cached_file_is_a_link(site: "Site") -> str:
    """A cached file that is a symbolic link."""
    directory, file = _filled(site)
    elsewhere = site.new_directory("elsewhere") / "code"
    file.rename(elsewhere)
    _poison(elsewhere)
    poisoned = elsewhere.read_bytes()
    file.symlink_to(elsewhere)
    status, said = _cache(site, directory)
    expect(status == 0 and "N 1" in said, f"{status}: {said[-300:]}")
    expect(elsewhere.read_bytes() == poisoned, "what the link leads to was changed")
    return "not followed"


def _poison(file: Path) -> None:
    """Give the file other content, with a right checksum: no machine code at all."""
    import hashlib

    data = file.read_bytes()
    magic = data[: data.index(b"\n") + 1]
    code = b"\x7fELF" + bytes(200)
    file.write_bytes(magic + hashlib.blake2b(code, digest_size=32).digest() + code)


@case(
    cwe=708, vector=RUNS_LOCAL, surface="files",
    precondition="a cache directory of another user (root only can make one)", steps="run the app",
    expected="not used",
)  # fmt: skip
def cache_of_another_user(site: "Site") -> str:
    """A cache that belongs to somebody else."""
    if os.getuid() != 0:
        raise NotRun("only root can give a directory to another user")
    directory = site.new_directory("cache")
    directory.chmod(0o700)
    os.chown(directory, 65534, 65534)
    status, said = _cache(site, directory)
    expect(status == 0 and "N 1" in said and not list(directory.iterdir()), f"{status}: {said[-300:]}")
    return "not used"


@case(
    cwe=427, vector=RUNS_LOCAL, surface="admin", short=True,
    precondition="a service whose working directory others fill with modules",
    steps="put duckdb.py, json.py and bitactor.py there; run a query",
    expected="they are not imported by the process that runs SQL",
)  # fmt: skip
def modules_in_the_working_directory(site: "Site") -> str:
    """Python modules in the directory where the service was started."""
    served = site.own
    mark = served.directory / "was-imported"
    made = []
    try:
        for name in ("duckdb", "json", "resource", "bitactor", "sitecustomize"):
            file = served.directory / f"{name}.py"
            file.write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
            made.append(file)
        answer = served.admin.post("/api/v1/query", {"sql": "select 1 as one"})
    finally:
        for file in made:
            file.unlink()
    expect(not mark.exists(), f"imported: {mark.read_text() if mark.exists() else ''}")
    expect(answer.status == 200, f"status {answer.status} {answer.body[:200]!r}")
    return "none was imported"


@case(
    cwe=1188, vector=RUNS_LOCAL, surface="cli",
    precondition="BITACTOR_CRASH_AT, as crash tests set it, without BITACTOR_TEST_FAULTS", steps="serve",
    expected="refused: points of failure are not for production",
)  # fmt: skip
def crash_points_in_production(site: "Site") -> str:
    """Crash points switched on by a variable."""
    directory = site.new_directory("faults")
    done = site.run("serve", APP, "--data-dir", directory / "data", "--ingest-port", "0", "--admin-port", "0",
                    environ={"BITACTOR_CRASH_AT": "ack.before"})  # fmt: skip
    expect(done.returncode in {1, 2}, f"status {done.returncode} {done.stdout[-200:]}")
    return done.stderr.strip().splitlines()[-1][:160]


@case(
    cwe=502, vector=STOPS_LOCAL, surface="files", precondition="a log whose app record is another's JSON",
    steps=(
        "put a SQLite file that is no log, a text, an empty file and a log of format 99 in the place of "
        "log.sqlite; serve"
    ),
    expected="refused each time, naming the file; nothing is overwritten",
)  # fmt: skip
def another_file_as_log(site: "Site") -> str:
    """Other files in the place of the log."""
    import apsw

    directory = site.new_directory("other-log")
    foreign = directory / "foreign.sqlite"
    with apsw.Connection(str(foreign)) as connection:
        connection.execute("create table x (a)")
    connection.close()
    newer = directory / "newer"
    data = _stopped_data(site, newer)
    connection = apsw.Connection(str(data / "log.sqlite"))
    connection.execute("update meta set value = 99 where name = 'format'")
    connection.close()
    given = (foreign.read_bytes(), b"not a log at all" * 100, (data / "log.sqlite").read_bytes())
    for at, content in enumerate(given):
        place = directory / str(at)
        place.mkdir()
        (place / "log.sqlite").write_bytes(content)
        done = site.run("serve", APP, "--data-dir", place, "--ingest-port", "0", "--admin-port", "0")
        expect(
            done.returncode == 1 and "log.sqlite" in done.stderr, f"{at}: status {done.returncode} {done.stderr[-300:]}"
        )
        expect((place / "log.sqlite").read_bytes() == content, f"{at}: it was written to")
    return "refused three times, nothing overwritten"
