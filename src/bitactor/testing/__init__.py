"""Tools for tests of your own actors: an engine in memory with a clock that you move, replay, comparison bit for bit.

Nothing here starts a thread: the engine is inline, so what you sent is handled when `send` returns.
"""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.engine import Engine
from bitactor.schema import duration_ns
from bitactor.signals import OUTPUT_DTYPE, output_dtype
from bitactor.tables import Table

if TYPE_CHECKING:
    from bitactor.actors import App

__all__ = ["FakeClock", "Results", "TestEngine", "assert_same", "replay", "results_of"]

START_NS: Final = 1_700_000_000_000_000_000  # where a FakeClock begins: 2023-11-14 22:13:20 UTC


class FakeClock:
    """Wall time that moves only when told to. One clock may drive several engines. One thread at a time."""

    def __init__(self, now_ns: int = START_NS) -> None:
        self.now_ns = now_ns
        self._engines: weakref.WeakSet[Any] = weakref.WeakSet()

    def attach(self, engine: Any) -> None:
        """Drive the wall time of that engine from now on; `Engine(clock=...)` calls it."""
        self._engines.add(engine)
        engine._set_wall(self.now_ns)

    def advance(self, duration: str | float) -> None:
        """Move forward by a duration such as "1d", or by seconds. Actors see it with the next signal."""
        self.now_ns += duration_ns(duration, "the duration") if duration != 0 else 0
        for engine in self._engines:
            if not engine.closed:
                engine._set_wall(self.now_ns)


class TestEngine(Engine):
    """An inline engine with a fake clock that keeps every output. For tests; one thread.

    clock: `engine.clock`, a FakeClock. Kinds that no actor handles are outputs; `outputs(kind)` gives all so far.
    """

    __test__ = False  # not a test case, whatever its name says to pytest

    def __init__(self, app: "App", *, clock: FakeClock | None = None, shards: int = 0, **settings: Any) -> None:
        self.clock = clock if clock is not None else FakeClock()
        super().__init__(app, shards, clock=self.clock, **settings)
        handled = {kind.number for actor in app.actors for kind in actor.kinds}
        outward = [kind for kind in app.kinds if kind.number not in handled]
        # In one subscription, so that the order among kinds is kept.
        self._outputs = self.subscribe(outward, capacity=1 << (18 if shards else 16)) if outward else None
        self._seen: list[npt.NDArray[Any]] = []

    def advance(self, duration: str | float) -> None:
        """Move the clock forward by "1d", "5m" or seconds; what is idle for too long expires with the next signal."""
        self.clock.advance(duration)

    def send_all(self, signals: Iterable[Sequence[Any]]) -> None:
        """Send (kind, key, value), optionally with aux and time, one after the other, each a step of its own."""
        for signal in signals:
            self.send(*signal)
            self._collect()

    def outputs(self, kind: Any = None) -> npt.NDArray[Any]:
        """Everything emitted outwards so far, of one kind or (None) of all, in order: a new array."""
        self.flush()
        self._collect()
        everything = np.concatenate(self._seen) if self._seen else np.empty(0, OUTPUT_DTYPE)
        self._seen = [everything]
        if kind is None:
            return everything.copy()
        declared = self._kind(kind)
        if self._outputs is None or declared not in self._outputs.kinds:
            raise ValueError(f"kind {declared.name!r} is handled by an actor and never leaves the app: read its state")
        chosen: npt.NDArray[Any] = everything[everything["kind"] == declared.number]
        return chosen.view(output_dtype(declared.value, declared.aux))

    def _collect(self) -> None:
        if self._outputs is None:
            return
        while (batch := self._outputs.read(timeout=0)) is not None and len(batch):
            self._seen.append(batch.view(OUTPUT_DTYPE))


@dataclass(frozen=True)
class Results:
    """What an engine made of its signals: a table for each actor, all outputs, and what it dropped."""

    tables: dict[str, Table]
    outputs: npt.NDArray[Any]
    dropped: dict[str, int]
    emits_dropped: dict[str, int]


def results_of(engine: TestEngine) -> Results:
    """Everything observable of a TestEngine, for `assert_same`."""
    outputs = engine.outputs()
    statistics = engine.statistics()
    if not statistics.conserved:
        raise AssertionError(f"signals are lost unseen: {statistics}")
    tables = {actor.name: engine.table(actor.name) for actor in engine._actors}
    return Results(tables, outputs, statistics.dropped, statistics.emits_dropped)


def replay(app: "App", signals: npt.NDArray[Any] | Iterable[npt.NDArray[Any]], **settings: Any) -> Results:
    """Run signals (an array, or frames: each array is sent for itself) through a fresh TestEngine.

    settings: of TestEngine, such as shards=2 or secret=(1, 2). The same frames give the same results, bit for bit.
    """
    frames = [signals] if isinstance(signals, np.ndarray) else signals
    with TestEngine(app, **settings) as engine:
        for frame in frames:
            # Outputs are read between steps, so that an engine never waits for this thread to make room for them.
            for begin in range(0, len(frame), engine.frame_signals):
                engine.send_batch(frame[begin : begin + engine.frame_signals])
                engine._collect()
        return results_of(engine)


def assert_same(left: "Results | TestEngine", right: "Results | TestEngine") -> None:
    """AssertionError unless both hold the same states, in the same order, made the same outputs and dropped the same.

    Compared bit for bit: 0.0 is not -0.0, and a NaN is itself. The message names the first difference.
    """
    a = results_of(left) if isinstance(left, TestEngine) else left
    b = results_of(right) if isinstance(right, TestEngine) else right
    if a.tables.keys() != b.tables.keys():
        raise AssertionError(f"actors differ: {', '.join(a.tables)} and {', '.join(b.tables)}")
    for name in a.tables:
        _assert_same_rows(f"table of {name!r}", a.tables[name].to_numpy(), b.tables[name].to_numpy())
    _assert_same_rows("outputs", a.outputs, b.outputs)
    for what, mine, theirs in (("dropped", a.dropped, b.dropped), ("dropped emits", a.emits_dropped, b.emits_dropped)):
        if mine != theirs:
            raise AssertionError(f"{what} differ: {mine} and {theirs}")


def _assert_same_rows(what: str, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> None:
    if a.dtype != b.dtype:
        raise AssertionError(f"{what}: dtype {a.dtype} and {b.dtype}")
    if len(a) != len(b):
        raise AssertionError(f"{what}: {len(a)} rows and {len(b)}")
    if a.tobytes() == b.tobytes():
        return
    size = a.dtype.itemsize
    left = np.frombuffer(a.tobytes(), "u1").reshape(-1, size)
    right = np.frombuffer(b.tobytes(), "u1").reshape(-1, size)
    fields = ", ".join(a.dtype.names or ())
    row = int(np.argmax((left != right).any(axis=1)))
    raise AssertionError(f"{what}, row {row} of {len(a)}: {a[row]} and {b[row]} ({fields})")
