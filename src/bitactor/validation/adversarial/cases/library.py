"""The library's API: arrays, sources, rings and files that were made to break the engine, each in a process of its own.

A probe must end with status 0 and say what its case expects. A signal of the system (a crash) never passes.
"""

from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial.registry import NotAsExpected, case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

CRASHES: Final = "AV:L/AC:L/PR:L/UI:N/S:U/C:L/I:H/A:H"
RUNS: Final = "AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"
STOPS: Final = "AV:L/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H"
_START: Final = """
import sys
import numpy as np
import bitactor as ba

app = ba.App("probe")
one = app.kind("one", 1, value="u8", aux="u4")
two = app.kind("two", 2, value="u8")

@app.actor(one, state={"n": "u8", "total": "u8"}, keys_max=6400)
def count(state, signal):
    state.n += 1
    state.total += signal.value

def refused(call, *expected):
    try:
        call()
    except expected or (Exception,) as error:
        print("refused:", type(error).__name__, str(error).splitlines()[0][:100])
        return
    sys.exit(f"NOT REFUSED: {call}")

def good(n):
    return ba.make_signals(one, np.arange(n) % 7, np.ones(n, 'u8'), time=1)
"""


def _probe(site: "Site", code: str, *, start: str = _START, timeout_s: float = 120) -> str:
    done = site.python(start + code, timeout_s=timeout_s)
    if done.returncode < 0:
        raise NotAsExpected(f"the process died of signal {-done.returncode}: {done.stderr[-200:]}")
    expect(done.returncode == 0, f"status {done.returncode}: {done.stdout[-150:]} {done.stderr[-300:]}")
    expect("DONE" in done.stdout, f"it says {done.stdout[-200:]!r}")
    return " | ".join(line for line in done.stdout.splitlines() if line != "DONE")[:300]


@case(
    cwe=843, vector=CRASHES, surface="library", short=True,
    steps=(
        "send_batch arrays of objects, floats, texts, of a dtype that has the same size and other fields, "
        "of two dimensions, None, bytes"
    ),
    expected="refused each time; the state stays",
)  # fmt: skip
def arrays_of_other_types(site: "Site") -> str:
    """Arrays of other types."""
    return _probe(site, """
other = np.dtype([("a", "f8"), ("b", "f8"), ("c", "f8"), ("d", "f8")])
with ba.Engine(app) as engine:
    for bad in (np.array([object()]), np.zeros(4, "f4"), np.array(["x"]), np.zeros(3, other), np.zeros((2, 2), ba.SIGNAL_DTYPE), None, b"x" * 32, 5, {}):
        refused(lambda: engine.send_batch(bad), TypeError, ValueError)
    refused(lambda: engine.send_batch(np.zeros((3,), ba.SIGNAL_DTYPE.newbyteorder())), TypeError, ValueError)
    assert engine.statistics().accepted == 0
print("DONE")
""")  # fmt: skip


@case(cwe=125, vector=CRASHES, surface="library",
      steps="send_batch arrays with negative, zero and large strides, not aligned, read-only, of a memory map, empty",
      expected="exactly their elements are taken, or they are refused")  # fmt: skip
def arrays_with_strides(site: "Site") -> str:
    """Arrays that do not lie in a row."""
    return _probe(site, """
signals = good(1000)
raw = np.zeros(32 * 100 + 1, "u1")
raw[1:] = good(100).view("u1")
with ba.Engine(app) as engine:
    sent = 0
    for array in (signals[::-1], signals[::3], signals[::-7], np.broadcast_to(signals[:1], (50,)), raw[1:].view(signals.dtype), signals[:0]):
        engine.send_batch(array)
        sent += len(array)
    frozen = signals.copy()
    frozen.flags.writeable = False
    engine.send_batch(frozen)
    sent += len(frozen)
    engine.flush()
    counted = sum(engine.table(count)["n"].tolist())
    assert counted == sent == engine.statistics().processed, (counted, sent)
print(sent, "taken")
print("DONE")
""")  # fmt: skip


@case(
    cwe=367, vector=CRASHES, surface="library",
    steps="send an array again and again while another thread changes kinds, flags and keys in it",
    expected="no crash; every signal is counted or refused",
)  # fmt: skip
def array_changed_while_sent(site: "Site") -> str:
    """An array that another thread changes while it is sent."""
    return _probe(site, """
import threading
signals = good(8192)
stop = threading.Event()
def change():
    random = np.random.default_rng(1)
    while not stop.is_set():
        at = random.integers(0, 8192, 64)
        signals["kind"][at] = random.integers(0, 65536, 64)
        signals["flags"][at] = random.integers(0, 65536, 64)
        signals["kind"][at] = 1
        signals["flags"][at] = 0
threads = [threading.Thread(target=change) for _ in range(2)]
for thread in threads: thread.start()
taken = no = 0
with ba.Engine(app) as engine:
    for _ in range(400):
        try:
            engine.send_batch(signals)
            taken += 8192
        except (ValueError, TypeError):
            no += 1
    stop.set()
    for thread in threads: thread.join()
    engine.flush()
    figures = engine.statistics()
    assert figures.conserved, figures
    assert figures.accepted <= taken, (figures.accepted, taken)
print(taken, "taken,", no, "batches refused, conserved")
print("DONE")
""")  # fmt: skip


@case(
    cwe=20, vector=CRASHES, surface="library",
    steps=(
        "signals of kind 0, 999 and 65,535, with flags, of a kind that no actor handles; values that do not "
        "fit"
    ),
    expected="refused, or counted as unhandled",
)  # fmt: skip
def signals_that_cannot_be(site: "Site") -> str:
    """Signals that cannot be."""
    return _probe(site, """
with ba.Engine(app) as engine:
    for field, value in (("kind", 0), ("kind", 999), ("kind", 65535), ("flags", 1)):
        bad = good(100)
        bad[field][99] = value
        refused(lambda: engine.send_batch(bad), ValueError)
    for given in ({"key": -1}, {"key": 1 << 64}, {"value": -1}, {"value": 1 << 64}, {"aux": 1 << 32}, {"time": -1}, {"key": None}, {"value": "x"}):
        refused(lambda: engine.send(**{"kind": one, "key": 1, "value": 1, **given}), ValueError, TypeError, OverflowError)
    assert engine.statistics().processed == 0
print("DONE")
""")  # fmt: skip


@case(
    cwe=95, vector=RUNS, surface="library",
    steps=(
        "handlers with eval, import, open, dunder attributes, globals, closures over objects, lambdas, "
        "while True, recursion"
    ),
    expected="refused when they are declared, with file and line",
)  # fmt: skip
def handlers_that_reach_out(site: "Site") -> str:
    """Handlers that reach out of their language."""
    return _probe(site, """
SOURCES = [
    "eval('1')", "__import__('os').system('true')", "open('/etc/passwd')", "state.__class__", "signal.__dict__", "print(state)", "globals()",
    "(lambda: 1)()", "[n for n in range(3)]", "state.nothing + 1", "os.getpid()", "emit.__self__", "getattr(state, 'n')", "state.n.__class__.__base__",
]
import importlib.util, pathlib, os
for at, source in enumerate(SOURCES):
    path = pathlib.Path(f"handler_{at}.py")
    path.write_text(f'''
import os
def declare(app, one, two):
    @app.actor(one, state={{"n": "u8"}}, name="bad_{at}")
    def bad(state, signal, emit):
        x = {source}
        state.n += 1
''')
    spec = importlib.util.spec_from_file_location(f"handler_{at}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    mine = ba.App(f"app{at}")
    kinds = mine.kind("one", 1, value="u8"), mine.kind("two", 2, value="u8")
    def go():
        module.declare(mine, *kinds)
        with ba.Engine(mine) as engine:
            engine.send(kind=kinds[0], key=1, value=1)
    try:
        go()
    except Exception as error:
        said = str(error)
        assert f"handler_{at}.py" in said or "line" in said, (source, said)
        continue
    sys.exit(f"NOT REFUSED: {source}")
print(len(SOURCES), "refused, with their place")
print("DONE")
""")  # fmt: skip


@case(
    cwe=770, vector=STOPS, surface="library",
    steps=(
        "states of 10**9 elements, 5,000 fields, names that are no identifiers, keys_max 0, -1 and 2**63, "
        "ring sizes that are no powers of two"
    ),
    expected="refused with a reason",
)  # fmt: skip
def declarations_that_cannot_be(site: "Site") -> str:
    """Declarations that cannot be."""
    return _probe(site, """
def actor(**given):
    def declare():
        mine = ba.App("x")
        kind = mine.kind("one", 1, value="u8")
        @mine.actor(kind, **{"state": {"n": "u8"}, **given})
        def handler(state, signal):
            state.n += 1
        ba.Engine(mine).close()
    return declare
for given in ({"state": {"n": "u8", "a": ("u8", 10**9)}}, {"state": {"n": "u8", "a": "u8[1000000000]"}}, {"state": {"n": "object"}},
              {"state": {"n": "u8", "__class__": "u8"}}, {"state": {"n": "u8", "a b": "u8"}},
              {"keys_max": 0}, {"keys_max": -1}, {"keys_max": 1 << 63}, {"expire_after": "-1s"}, {"expire_after": "never"}):
    refused(actor(**given))
for number in (0, -1, 65536, 1 << 40):
    refused(lambda: ba.App("x").kind("one", number))
refused(lambda: ba.App("x").kind("one", 1, value="O"))
refused(lambda: ba.Engine(app, ring_signals=1000))
refused(lambda: ba.Engine(app, shards=-1))
refused(lambda: ba.Engine(app, shards=100_000))
print("DONE")
""")  # fmt: skip


@case(
    cwe=674, vector=STOPS, surface="library", short=True,
    steps="two actors that emit to each other for ever; one that emits twice to itself",
    expected="the step ends at its bound; the rest is dropped and counted",
)  # fmt: skip
def emits_without_end(site: "Site") -> str:
    """Actors that feed each other for ever."""
    return _probe(site, """
a, b = app.kind("a", 11, value="u8"), app.kind("b", 12, value="u8")

@app.actor(a, state={"n": "u8"})
def ping(state, signal, emit):
    state.n += 1
    emit(b, signal.key, signal.value)
    emit(b, signal.key + 1, signal.value)

@app.actor(b, state={"n": "u8"})
def pong(state, signal, emit):
    state.n += 1
    emit(a, signal.key, signal.value)
    emit(a, signal.key + 1, signal.value)

with ba.Engine(app) as engine:
    engine.send(kind=a, key=1, value=1)
    engine.flush()
    figures = engine.statistics()
    dropped = sum(figures.emits_dropped.values()) if hasattr(figures.emits_dropped, "values") else sum(vars(figures.emits_dropped).values())
    assert figures.conserved and dropped > 0, figures
    engine.send_batch(good(1000))
    engine.flush()
print("ended,", dropped, "emits dropped")
print("DONE")
""")  # fmt: skip


@case(
    cwe=362, vector=CRASHES, surface="library",
    steps=(
        "use an engine after close, close it while eight threads send, query and close; use it in a forked "
        "child"
    ),
    expected="errors, no crash, no hang",
)  # fmt: skip
def engine_closed_under_load(site: "Site") -> str:
    """An engine that is closed while it is used."""
    return _probe(site, """
import os, threading
for turn in range(5):
    engine = ba.Engine(app)
    ended = []
    def use():
        try:
            while True:
                engine.send_batch(good(100))
                engine.table(count)
                engine.statistics()
        except Exception as error:
            ended.append(type(error).__name__)
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads: thread.start()
    import time
    time.sleep(0.05)
    closers = [threading.Thread(target=engine.close) for _ in range(3)]
    for thread in closers: thread.start()
    for thread in [*threads, *closers]: thread.join(20)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
refused(lambda: engine.send_batch(good(1)))
engine = ba.Engine(app)
child = os.fork()
if child == 0:
    try:
        engine.send_batch(good(1))
    except Exception as error:
        os._exit(7 if "spawn" in str(error) or "fork" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
engine.close()
print(sorted(set(ended)))
print("DONE")
""")  # fmt: skip


@case(
    cwe=131, vector=CRASHES, surface="library",
    steps=(
        "rings of no slots, of 2**60 slots, of records of 0 and 2**31 bytes; pushes of other sizes; pops "
        "into small buffers"
    ),
    expected="refused",
)  # fmt: skip
def rings_that_cannot_be(site: "Site") -> str:
    """Rings that cannot be."""
    return _probe(site, """
for given in ({"capacity": 0}, {"capacity": -1}, {"capacity": 1 << 60}, {"capacity": 3.5}, {"capacity": 16, "dtype": "O"}, {"capacity": 16, "dtype": "V0"}):
    refused(lambda: ba.Ring(**given))
ring = ba.Ring(64)
producer, consumer = ring.producer(), ring.consumer()
for bad in (np.zeros(3, "f4"), b"x", None, np.zeros((2, 2), ba.SIGNAL_DTYPE), [1, 2]):
    refused(lambda: producer.push_batch(bad))
producer.push_batch(good(5).view(ba.SIGNAL_DTYPE))
for bad in (np.zeros(5, "u1"), np.zeros((2, 2), ba.SIGNAL_DTYPE), None):
    refused(lambda: consumer.pop_into(bad))
assert len(consumer.pop_batch(100)) == 5
print("DONE")
""")  # fmt: skip


@case(
    cwe=502, vector=CRASHES, surface="library",
    steps="change each of the first 256 bytes of a shared ring's memory, open it and pop",
    expected="refused or read within bounds; no crash",
)  # fmt: skip
def shared_ring_tampered(site: "Site") -> str:
    """A shared ring whose memory another process writes nonsense to."""
    return _probe(site, """
import os, pathlib, subprocess
CHILD = '''
import sys
import bitactor as ba
try:
    with ba.Ring.attach(sys.argv[1]) as ring:
        print(ring.statistics())
        consumer = ring.consumer()
        got = consumer.pop_batch(100, timeout=0.05)
        print("got", 0 if got is None else len(got))
except (OSError, ValueError, TypeError, RuntimeError, ba.PeerDiedError if hasattr(ba, "PeerDiedError") else OSError) as error:
    print("refused", type(error).__name__)
'''
name = f"adversarial-{os.getpid()}"
before = set(os.listdir("/dev/shm"))
with ba.Ring.create(name, 64) as ring:
    made = set(os.listdir("/dev/shm")) - before
    assert made, "no shared memory"
    file = pathlib.Path("/dev/shm", made.pop())
    assert file.stat().st_mode & 0o077 == 0, oct(file.stat().st_mode)
    producer = ring.producer()
    producer.push_batch(good(20).view(ba.SIGNAL_DTYPE))
    whole = file.read_bytes()
    ends = {}
    for at in [*range(0, 64), *range(64, 256, 8), *range(256, min(2048, len(whole)), 64)]:
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(bytes([whole[at] ^ 0xFF]))
        try:
            done = subprocess.run([sys.executable, "-c", CHILD, name], capture_output=True, text=True, timeout=30)
            said = done.stdout.split()[0] if done.stdout else done.stderr[-60:]
            assert done.returncode >= 0, f"byte {at}: the process died of signal {-done.returncode}"
            ends[done.returncode] = ends.get(done.returncode, 0) + 1
        finally:
            with file.open("r+b") as opened:
                opened.write(whole)
print(ends)
print("DONE")
""")  # fmt: skip


@case(
    cwe=190, vector=STOPS, surface="library",
    steps="text keys of other types, with half characters, of 10 MB; times and durations past 2**64",
    expected="refused with a reason",
)  # fmt: skip
def texts_and_times(site: "Site") -> str:
    """Texts and times that cannot be."""
    return _probe(site, """
for bad in (None, 5, b"x", ["x"], "\\ud800"):
    refused(lambda: ba.text_key(bad))
ba.text_key("x" * 10_000_000)
with ba.Engine(app) as engine:
    for time in (1 << 64, -5, float("nan"), float("inf"), "yesterday"):
        refused(lambda: engine.send(kind=one, key=1, value=1, time=time), ValueError, TypeError, OverflowError)
    refused(lambda: engine.state("nothing", key=1))
    refused(lambda: engine.state(count, key="\\ud800"))
    refused(lambda: engine.table("nothing"))
print("DONE")
""")  # fmt: skip
