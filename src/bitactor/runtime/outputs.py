"""The output hub: what actors emit outwards, kept in a window, for subscribers of the wire.

Loop thread only, but for `export`. The window is a function of the log like all state: a snapshot holds it, a replay
goes on with it. Rows are numbered without gaps; `count - len(window) <= first <= cursor <= count` for every reader that
has lost nothing. A reader that the window overtakes goes on with the oldest row there is and is told how many it lost.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import Outputs, Subscribe
from bitactor.signals import OUTPUT_DTYPE

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.engine import Engine
    from bitactor.outputs import Subscription

ROWS_AT_ONCE: Final = 4096
_BATCHES_AT_ONCE: Final = 16  # then the loop has a turn
_NATIVE: Final = np.dtype(
    [(n, f"u{OUTPUT_DTYPE[n].itemsize}") for n in OUTPUT_DTYPE.names or ()]
)  # value and aux as bare bits
_WIRE: Final = _NATIVE.newbyteorder(">")


class Reader:
    """A subscriber's place (ingest's Subscription). cursor: the number of the row that it is given next."""

    def __init__(self, hub: "OutputHub", subscribe: Subscribe, cursor: int, write: Callable[[bytes], bool]) -> None:
        self.cursor = cursor
        self.dropped = 0
        self._hub = hub
        self._id = subscribe.id
        self._wanted = np.zeros(65536, bool)
        self._wanted[list(subscribe.kinds)] = True
        # A place ahead of all that was emitted: what comes before it was not asked for.
        self._ahead_of: tuple[int, int] | None = None
        if not subscribe.live:
            self._ahead_of = (subscribe.from_position, subscribe.from_index)
        self._write = write
        self._may_write = True

    def resume(self) -> None:
        """Write again."""
        self._may_write = True
        self.pump()

    def close(self) -> None:
        """Write nothing more."""
        self._may_write = False
        self._hub.readers.discard(self)

    def pump(self) -> None:
        """Write what there is, as far as the peer's buffer goes."""
        hub = self._hub
        while self._may_write and self.cursor < hub.count:
            if self.cursor < hub.first:
                self.dropped += hub.first - self.cursor
                self.cursor = hub.first
            rows = hub.rows(self.cursor)
            self.cursor += len(rows)
            chosen = self._asked_for(rows[self._wanted[rows["kind"]]])
            if len(chosen):
                message = Outputs(self._id, self.dropped, chosen.astype(_WIRE).tobytes())
                self._may_write = self._write(message.encode())

    def _asked_for(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Without rows before the place that was asked for; places only grow, so once one is there all are."""
        if self._ahead_of is None or not len(rows):
            return rows
        position, index = self._ahead_of
        behind = (rows["position"] > position) | ((rows["position"] == position) & (rows["index"] >= index))
        if behind.any():
            self._ahead_of = None
        chosen: npt.NDArray[Any] = rows[behind]
        return chosen


class OutputHub:
    """Reads an engine's outward outputs on the loop into a window of `window` rows.

    count: rows ever; first: number of the oldest row kept. gone: the (position, index) before which rows are missing.
    """

    def __init__(self, app: "App", window: int) -> None:
        handled = {kind.number for actor in app.actors for kind in actor.kinds}
        self.kinds = [kind for kind in app.kinds if kind.number not in handled]
        self.readers: set[Reader] = set()
        self.count = 0
        self.first = 0
        self.gone = (0, 0)
        self._names = {kind.number: kind.name for kind in app.kinds}
        self._window: npt.NDArray[Any] = np.empty(window if self.kinds else 0, _NATIVE)
        self._subscription: Subscription | None = None
        self._loop = asyncio.get_running_loop()
        self._fd = -1

    def attach(self, engine: "Engine") -> None:
        """Read this engine's outputs, from the next step on."""
        if self.kinds:
            self._subscription = engine.subscribe(self.kinds, capacity=1 << 16)
            self._fd = self._subscription.fileno()
            self._loop.add_reader(self._fd, self._readable)
            self._drain()

    def close(self) -> None:
        """Read no more; what subscribers have not been given stays unread."""
        if self._subscription is not None:
            self._loop.remove_reader(self._fd)
            self._subscription.close()
            self._subscription = None

    def subscribe(self, subscribe: Subscribe, write: Callable[[bytes], bool]) -> Reader:
        """A reader from the place that `subscribe` names. ProtocolError: signal_kind, output_gone."""
        outward = {kind.number for kind in self.kinds}
        for number in subscribe.kinds:
            if number not in self._names:
                raise ProtocolError(Code.SIGNAL_KIND, f"kind {number} is not declared by the app")
            if number not in outward:
                name = self._names[number]
                message = f"kind {name!r} is handled by an actor and never leaves the app: query its state"
                raise ProtocolError(Code.SIGNAL_KIND, message)
        cursor = self.count
        if not subscribe.live:
            wanted = (subscribe.from_position, subscribe.from_index)
            if wanted < self.gone:
                position, index = self.gone
                message = f"outputs before position {position}, index {index} are gone: outputs.window"
                raise ProtocolError(Code.OUTPUT_GONE, message)
            cursor = self.find(*wanted)
        reader = Reader(self, subscribe, cursor, write)
        self.readers.add(reader)
        self._loop.call_soon(reader.pump)
        return reader

    def find(self, position: int, index: int) -> int:
        """The number of the first row at or behind that place."""
        size = len(self._window)

        def place(number: int) -> tuple[int, int]:
            row = self._window[number % size]
            return int(row["position"]), int(row["index"])

        return self.first + bisect_left(range(self.first, self.count), (position, index), key=place)

    def place(self, number: int) -> tuple[int, int] | None:
        """(position, index) of the row of that number; behind the last row, the first place after it. None: no rows."""
        if self.count == self.first:
            return None
        row = self._window[min(number, self.count - 1) % len(self._window)]
        return int(row["position"]), int(row["index"]) + (number >= self.count)

    def emitted(self, begin: int, end: int) -> int:
        """How many of the rows kept were caused by signals at positions begin <= p < end."""
        return self.find(end, 0) - self.find(begin, 0) if self.count else 0

    def catch_up(self) -> None:
        """Take all that the engine has emitted into the window; readers are given it later."""
        while self._take():
            pass

    def rows(self, number: int) -> npt.NDArray[Any]:
        """Rows from that number on, at most 4,096 of them; a view that is good until the next rows come."""
        at = number % len(self._window)
        return self._window[at : at + min(ROWS_AT_ONCE, self.count - number)]

    def export(self) -> dict[str, bytes]:
        """The window as named buffers, up to the engine's position. While nothing is applied; not the loop's thread."""
        if not self.kinds:
            return {"outputs": b"", "outputs_gone": np.zeros(2, "<u8").tobytes()}

        async def on_loop() -> dict[str, bytes]:
            return self._export()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result()

    def _export(self) -> dict[str, bytes]:
        self.catch_up()
        numbers = np.arange(self.first, self.count) % len(self._window)
        kept = self._window[numbers].astype(_NATIVE.newbyteorder("<")).tobytes()
        return {"outputs": kept, "outputs_gone": np.array(self.gone, "<u8").tobytes()}

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Go on with an exported window, before attach; from a larger one the newest rows are kept."""
        rows = np.frombuffer(sections["outputs"], _NATIVE.newbyteorder("<")).astype(_NATIVE)
        position, index = np.frombuffer(sections["outputs_gone"], "<u8").tolist()
        self.gone = (position, index)
        if self.kinds:
            self._keep(rows)

    def _readable(self) -> None:
        assert self._subscription is not None
        self._subscription.clear_news()
        self._drain()

    def _drain(self) -> None:
        for _ in range(_BATCHES_AT_ONCE):
            if self._subscription is None:
                return
            if not self._take() and not self._subscription.has_news():
                break
        else:
            self._loop.call_soon(self._drain)
        for reader in list(self.readers):
            reader.pump()

    def _take(self) -> bool:
        """Move a batch into the window; whether there was one."""
        batch = self._subscription.read(ROWS_AT_ONCE, timeout=0) if self._subscription is not None else None
        if batch is None or not len(batch):
            return False
        self._keep(batch.view(_NATIVE))
        return True

    def _keep(self, rows: npt.NDArray[Any]) -> None:
        size = len(self._window)
        lost = max(0, self.count + len(rows) - size - self.first)  # rows that leave the window, or never enter it
        if lost:
            kept = self.count - self.first
            last = self._window[(self.first + lost - 1) % size] if lost <= kept else rows[lost - kept - 1]
            self.gone = (int(last["position"]), int(last["index"]) + 1)
            self.first += lost
        fresh = rows[max(0, len(rows) - size) :]
        at = (self.count + len(rows) - len(fresh)) % size
        head = min(len(fresh), size - at)
        self._window[at : at + head] = fresh[:head]
        self._window[: len(fresh) - head] = fresh[head:]
        self.count += len(rows)
