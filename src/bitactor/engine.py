"""The engine: an App in, state and emitted signals out. The library's face.

`Engine` runs an App's actors on worker threads (shards), or in the caller's thread with shards=0. Any thread may call
any method at any time unless it says otherwise. Every wait gives up the GIL and answers Ctrl-C.
"""

import asyncio
import atexit
import secrets
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from bitactor._core._engine import (
    FRAME_SIGNALS_MAX,
    SHARDS_MAX,
    ClosedError,
    EngineCore,
    OutputsFullError,
    SignalError,
)
from bitactor._core._state import _erase
from bitactor.outputs import Dispatcher, Subscription
from bitactor.signals import SIGNAL_DTYPE, check_lane, make_signals, value_types
from bitactor.state import EngineState, StateBuffers, read_state, write_state
from bitactor.statistics import DeadLetter, Statistics, read_dead_letters, read_statistics
from bitactor.tables import State, Table, read_table

if TYPE_CHECKING:
    from bitactor.actors import Actor, App
    from bitactor.schema import Kind

__all__ = ["ClosedError", "Engine", "OutputsFullError", "SignalError"]

RING_SIGNALS = 32768
_CLOSE_STALL_S = 1.0  # a closing engine gives up on readers that took nothing for so long

_open_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_open_engines):
        engine.close()


def _record(signals: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if signals.dtype is not SIGNAL_DTYPE:
        value_types(signals.dtype)
    if signals.ndim != 1 or not signals.flags.c_contiguous:
        raise TypeError(f"apply takes one contiguous dimension; this array has shape {signals.shape}")
    return signals


def _power_of_two(capacity: int) -> int:
    if not 1 <= capacity <= 1 << 28:
        raise ValueError(f"capacity is {capacity}: give 1 to {1 << 28} outputs")
    return max(2, 1 << (capacity - 1).bit_length())


class Engine(EngineCore):
    """Runs the actors of an App.

    shards: worker threads, 1 to 64; 0 is inline: the thread that sends does the work before `send` returns.
    ring_signals: room between senders and shards, a power of two, 16,384 or more (default 32,768; 49 bytes each).
    full: what a full ring means: "wait" (default), "refuse" (send returns what was admitted) or "drop" (counted).
    frame_signals: most signals of one step, 1 to 8,192. Changes results only of apps whose actors feed each other.
    clock: None for the real wall time, "records" for that of the records that `apply` is given, or a
    bitactor.testing.FakeClock.
    secret: two u64 that place keys in tables; nothing observable depends on them; random by default.
    lane, lanes: hold only the keys of one lane of several, those whose bitactor.signals.lanes_of is `lane`; lanes is 1
    (all keys), 2, 4, 8, 16, 32 or 64. Signals of other lanes are refused; what actors emit to other actors' keys there
    is given to `subscribe_remote`. More shards than 64 / lanes have nothing to do.

    State, tables and outputs are the same, bit for bit, for any number of shards and any secret. Nothing is durable:
    this is the library alone, and what the process loses is lost.
    """

    def __init__(
        self,
        app: "App",
        shards: int = 1,
        *,
        ring_signals: int | None = None,
        full: Literal["wait", "refuse", "drop"] = "wait",
        frame_signals: int = FRAME_SIGNALS_MAX,
        clock: Any = None,
        secret: tuple[int, int] | None = None,
        position: int = 0,
        lane: int = 0,
        lanes: int = 1,
    ) -> None:
        check_lane(lane, lanes)
        if not 0 <= shards <= SHARDS_MAX:
            raise ValueError(f"shards is {shards}: give 0 (inline) to {SHARDS_MAX}")
        if full not in ("wait", "refuse", "drop"):
            raise ValueError(f'full is {full!r}: give "wait", "refuse" or "drop"')
        if not 1 <= frame_signals <= FRAME_SIGNALS_MAX:
            raise ValueError(f"frame_signals is {frame_signals}: give 1 to {FRAME_SIGNALS_MAX}")
        ring = RING_SIGNALS if ring_signals is None else ring_signals
        if ring & (ring - 1) or not 2 * FRAME_SIGNALS_MAX <= ring <= 1 << 30:
            raise ValueError(f"ring_signals is {ring}: give a power of two, {2 * FRAME_SIGNALS_MAX} to {1 << 30}")
        self.app = app
        self.shards = shards
        self.frame_signals = frame_signals
        self._actors: tuple[Actor, ...] = tuple(app.actors)
        self._kinds: tuple[Kind, ...] = tuple(app.kinds)
        self._handlers = [actor.compile() for actor in self._actors]  # held: the code lives as long as the engine
        self._dispatcher: Dispatcher | None = None
        self._lock = threading.Lock()  # guards the dispatcher's making and closing
        self._refused: dict[tuple[str, str], bytes | None] = {}
        actors = [
            (
                handler.address,
                actor.layout.stride,
                actor.layout.init,
                actor.partition_keys_max,
                actor.idle_ns,
                actor.tick_budget,
                actor.reads_wall,
                [kind.number for kind in actor.kinds],
                [kind.number for kind in actor.emits],
            )
            for actor, handler in zip(self._actors, self._handlers, strict=True)
        ]
        kinds = [(kind, kind.number, kind.value, kind.aux) for kind in self._kinds]
        if not kinds:
            raise ValueError(f"app {app.name!r} declares no kind: app.kind(name, number) declares one")
        chosen = (secrets.randbits(64), secrets.randbits(64)) if secret is None else secret
        self._open(kinds, actors, shards, ring, full, frame_signals, chosen, clock is not None, position, lane, lanes)
        if clock is not None and clock != "records":
            clock.attach(self)
        _open_engines.add(self)

    # --- in ---

    def send_batch(
        self,
        signals: npt.NDArray[Any] | None = None,
        *,
        kind: Any = None,
        key: Any = None,
        value: Any = None,
        aux: Any = 0,
        time: Any = None,
    ) -> int:
        """Send an array of signals, or columns of one kind; return how many were admitted.

        signals: one dimension, of bitactor.signal_dtype(value, aux) for the kinds in it; a contiguous array goes to the
        core by pointer, another is copied once. Columns: as for bitactor.make_signals.

        The array is cut into frames of frame_signals, each one step. With the policy "wait" everything is admitted;
        with "refuse" the first refused frame ends the call, with "drop" refused frames are dropped and counted:
        backpressure is a result, not an error. SignalError names the first signal that no engine takes; nothing of its
        frame was admitted, the frames before it were. TypeError for a wrong dtype.
        """
        if signals is None:
            if kind is None or key is None or value is None:
                raise TypeError("send_batch takes an array of signals, or the columns kind=, key= and value=")
            signals = make_signals(kind, key, value, aux, time)
        elif kind is not None or key is not None or value is not None:
            raise TypeError("send_batch takes an array of signals or columns, not both")
        if not isinstance(signals, np.ndarray):
            raise TypeError(f"send_batch takes a NumPy array of bitactor.SIGNAL_DTYPE, not {type(signals).__name__}")
        if signals.ndim != 1:
            raise TypeError(f"send_batch takes one dimension; this array has shape {signals.shape}")
        types = value_types(signals.dtype)
        if types not in self._refused:
            self._refused[types] = self._refused_kinds(types)
        if not signals.flags.c_contiguous:
            signals = np.ascontiguousarray(signals)
        return int(self._send_frames(signals, self._refused[types]))

    def _refused_kinds(self, types: tuple[str, str]) -> bytes | None:
        """For each kind number 1 where an array of these types is not the kind's; None when all declared kinds fit."""
        wrong = [kind.number for kind in self._kinds if (kind.value, kind.aux) != types]
        if not wrong:
            return None
        table = bytearray(65536)
        for number in wrong:
            table[number] = 1
        return bytes(table)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything sent before this call is handled. False: `timeout` seconds passed first."""
        return bool(self._flush(timeout))

    def apply(self, signals: npt.NDArray[Any], wall_ns: int) -> None:
        """Apply one record of a log: its signals in steps of 8,192 (the last may be shorter), all at wall_ns.

        signals: one dimension, contiguous, of any signal dtype; value and aux are taken as the signal's kind declares
        them. None: a heartbeat, which moves wall time by an empty step, so that what is idle for too long expires and
        is seen no more. wall_ns: nanoseconds since the Unix epoch, never less than before.

        Waits for room, not until the record is handled. The engine is made with clock="records" and full="wait". One
        thread at a time, which alone sends. SignalError for a kind that is not declared or flags that are not zero,
        as in send_batch: the steps before it are applied, so check a record before it is logged. SignalError for a key
        of another lane: nothing of the record is applied.
        """
        self._apply(_record(signals), wall_ns, True)

    def try_apply(self, signals: npt.NDArray[Any], wall_ns: int) -> bool:
        """apply() that never waits. False, and nothing was done: no room now, or a record of more than one step.

        A heartbeat of an app whose keys expire or whose handlers read wall time may say False at any time, because the
        shards must stand still for it. An inline engine (shards=0) does all the work before it returns True.
        """
        return self._apply(_record(signals), wall_ns, False)

    # --- the whole state ---

    def prepare_export(self) -> StateBuffers:
        """Memory for one export_state, somewhat more than the state needs now. Any thread; stops nobody."""
        return StateBuffers(self, self._actors)

    def export_state(self, buffers: StateBuffers | None = None) -> EngineState:
        """Everything that the future depends on, copied at one step boundary behind all that was sent before this call.

        Shards stand still while memory is copied, some ten milliseconds a million keys. buffers: what prepare_export
        gave; without them memory is made here first, which takes this thread several times as long. If the state has
        grown beyond them, memory is made and the shards stand still once more.
        Any thread but a handler's; senders may go on meanwhile. Works after close, too.
        """
        return read_state(self, self._kinds, self._actors, buffers or self.prepare_export())

    def import_state(self, state: EngineState) -> None:
        """Fill this engine, which has taken no signal yet, with a state; it goes on as the exporting one would have.

        States, dense order, expiry, outputs and counters continue bit for bit, with any number of shards and another
        secret. StateError, before anything is touched: the state is damaged, or of another app (bitactor.migration).
        RuntimeError: signals were sent already. MemoryError: the engine is closed then.
        """
        try:
            write_state(self, self._kinds, self._actors, state)
        except MemoryError:
            self._close(True)
            raise

    def erase(self, key: int) -> int:
        """Take a key out of every actor, at the step boundary behind all that was sent before: how many had it.

        Where that boundary lies changes later results (dense order, key caps): log the erasure between two records.
        ValueError for a key of another lane.
        """
        self._is_here(key)
        return int(_erase(self, key))

    async def flush_async(self) -> None:
        """flush() for asyncio: waits in a thread of the loop's default executor, which is bounded."""
        await asyncio.get_running_loop().run_in_executor(None, self.flush)

    # --- out ---

    def state(self, actor: Any, key: int) -> State | None:
        """The state of a key, or None when it has none (never seen, or expired).

        Waits for what was sent before this call: reads what you wrote. `actor`: the decorated handler, or its name.
        ValueError for a key of another lane.
        """
        index = self._actor_index(actor)
        self._is_here(key)
        layout = self._actors[index].layout
        found = self._state(index, key, layout.stride)
        return None if found is None else State(layout.dtype, found[0], key, found[1])

    def table(self, actor: Any, columns: Sequence[str] | None = None) -> Table:
        """All keys of an actor with the named fields of their states (default: all), as of one step boundary.

        Waits for what was sent before this call. Rows: partition by partition, in the order in which keys came, the
        same for any number of shards. The Table has __arrow_c_stream__, so pandas, Polars, DuckDB and pyarrow read it.
        """
        index = self._actor_index(actor)
        return read_table(self, index, self._actors[index].layout, columns)

    def subscribe(
        self,
        kinds: Any,
        *,
        capacity: int = 65536,
        full: Literal["wait", "drop"] = "wait",
        callback: Callable[[npt.NDArray[Any]], object] | None = None,
    ) -> Subscription:
        """Read the signals that actors emit, of one kind or several, from the next step on.

        capacity: outputs held for each shard, rounded up to a power of two. full: with "wait" a shard whose outputs are
        not read waits, then the ring fills, then senders wait; with "drop" outputs are dropped and counted.
        callback: called with each batch in the engine's one dispatcher thread; without it, iterate over the result.
        """
        chosen = [kinds] if not isinstance(kinds, (list, tuple, set, frozenset)) else list(kinds)
        declared = [self._kind(kind) for kind in chosen]
        if full not in ("wait", "drop"):
            raise ValueError(f'full is {full!r}: give "wait" or "drop"')
        subscription = Subscription(self, declared, _power_of_two(capacity), full == "drop")
        if callback is not None:
            with self._lock:
                if self._dispatcher is None:
                    self._dispatcher = Dispatcher(self)
                self._dispatcher.add(subscription, callback)
        return subscription

    def subscribe_remote(self, *, capacity: int = 65536) -> Subscription:
        """Read what actors emit to keys of other lanes, of kinds that actors handle, from the next step on.

        Arrays of bitactor.OUTPUT_DTYPE in the order of `subscribe`: who owns this lane sends each signal to the lane of
        its key, where (lane, position, index) tells it from every other. Nothing is dropped: a shard whose emits are
        not read waits, as with full="wait" there. An engine of all lanes has none.
        """
        handled = {kind.number for actor in self._actors for kind in actor.kinds}
        emitted = {kind.number for actor in self._actors for kind in actor.emits}
        kinds = [kind for kind in self._kinds if kind.number in handled & emitted]
        return Subscription(self, kinds, _power_of_two(capacity), drop=False, remote=True)

    def statistics(self) -> Statistics:
        """Counts of everything, consistent at step boundaries: `conserved` is promise 1. Waits for no shard."""
        return read_statistics(self, self._kinds, self._actors)

    def dead_letters(self) -> list[DeadLetter]:
        """Signals that handlers raised on, or that were refused a key: the newest 64 of each shard; taken once."""
        return read_dead_letters(self, self._actors)

    # --- the end ---

    def close(self, *, discard: bool = False) -> None:
        """Handle what is queued (unless discard), stop and join the shards. Later calls do nothing.

        Waits for readers of full subscriptions as long as they read; one that reads nothing for a second loses what it
        has no room for, counted in `dropped`. What subscriptions hold can still be read afterwards.
        """
        if self.closed or self._is_forked():
            return
        if not discard:
            self._drain()
        self._close(discard)
        _open_engines.discard(self)
        dispatcher = self._dispatcher
        if dispatcher is not None:
            dispatcher.join()

    def _drain(self) -> None:
        last, since = -1, time.monotonic()
        target = self._tail()  # once: what senders who go on add meanwhile does not put it off
        while not self._flush(0.05, target):
            now = sum(row[0] for row in self._statistics()[1])
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > _CLOSE_STALL_S:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()  # with an exception on its way too: what was accepted is handled

    def __del__(self) -> None:
        if not self.closed and not self._is_forked():
            warnings.warn(
                f"{self!r} was not closed; use it in a with statement", ResourceWarning, source=self, stacklevel=2
            )
            self._close(True)

    def __repr__(self) -> str:
        how = "inline" if not self.shards else f"{self.shards} shard{'s' * (self.shards > 1)}"
        which = f", lane {self.lane} of {self.lanes}" if self.lanes > 1 else ""
        return f"<Engine of {self.app.name!r}, {how}{which}{', closed' * bool(self.closed)}>"

    # --- names ---

    def _is_here(self, key: int) -> None:
        if self.lanes > 1 and (elsewhere := self._elsewhere(key)):
            raise ValueError(f"{elsewhere}: ask the engine of that lane")

    def _actor_index(self, actor: Any) -> int:
        for index, known in enumerate(self._actors):
            if actor is known or actor == known.name:
                return index
        names = ", ".join(known.name for known in self._actors)
        raise KeyError(f"no actor {getattr(actor, 'name', actor)!r} in app {self.app.name!r}; it has {names or 'none'}")

    def _kind(self, kind: Any) -> "Kind":
        for known in self._kinds:
            if kind is known or kind in (known.name, known.number):
                return known
        names = ", ".join(known.name for known in self._kinds)
        raise KeyError(f"no kind {getattr(kind, 'name', kind)!r} in app {self.app.name!r}; it has {names}")
