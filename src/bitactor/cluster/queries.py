"""Reading state from any replica: a key is asked of its lane's owner, a table is gathered from all owners.

Two halves. The answers are given on the owner's loop, about a lane it owns. Reader has the face that the admin
interface knows of an engine: `state` and `table`, called in a thread, which ask the owners and put the answers
together. Each answer says the lane's position and the owner's generation, so that one of a former owner is told from a
newer one.
"""

import asyncio
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import Subscribe
from bitactor.signals import lanes_of
from bitactor.tables import State, Table

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.cluster.calls import Calls
    from bitactor.cluster.lane import LaneCore

ASK_S: Final = 15.0  # for a lane that moves
OUTPUTS_WAIT_S: Final = 2.0
NAMES_S: Final = 1.0  # for so long names of all lanes are not asked for again
_HEAD: Final = struct.Struct(">I")


# --- on the owner ---


async def answer_state(core: "LaneCore", question: dict[str, Any]) -> bytes:
    """{"actor", "key"} -> the state's bytes with their layout, or none."""
    state = await asyncio.to_thread(core.engine.state, question["actor"], question["key"])
    name = core.tables.names.get(question["key"])
    head = {"position": core.writer.place.position, "generation": core.generation, "found": False, "name": name}
    if state is None:
        return _packed(head, b"")
    head |= {"position": state.position, "found": True, "layout": str(state._record.dtype)}
    return _packed(head, state.to_bytes())


async def answer_table(core: "LaneCore", question: dict[str, Any]) -> bytes:
    """{"actor", "columns"} -> columns one after the other."""
    table = await asyncio.to_thread(core.engine.table, question["actor"], question["columns"])
    arrays = {name: np.ascontiguousarray(column) for name, column in table.columns.items()}
    columns = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    head = {"position": table.position, "generation": core.generation, "columns": columns}
    return _packed(head, b"".join(array.tobytes() for array in arrays.values()))


async def answer_producers(core: "LaneCore", _: dict[str, Any]) -> bytes:
    """The producer table of the lane, without the other lanes as producers."""
    rows = [
        [r.id, r.name, r.identity, r.epoch, r.next, r.floor, r.batches]
        for r in core.tables.producers.copy().values()
        if r.identity
    ]
    return json.dumps(rows).encode()


async def answer_names(core: "LaneCore", _: dict[str, Any]) -> bytes:
    """The texts of the lane's keys: {"key": text}, keys as decimal texts."""
    return json.dumps({str(key): text for key, text in core.tables.names.copy().items()}).encode()


async def answer_outputs(core: "LaneCore", question: dict[str, Any]) -> bytes:
    """Outputs from a place on, as rows of the wire; waits for some for a moment. head: `next`, where to go on."""
    hub, rows, some = core.hub, bytearray(), asyncio.Event()

    def write(message: bytes) -> bool:
        rows.extend(message[_OUTPUTS_HEAD:])
        some.set()
        return False  # one message an answer

    live, position, index = question["live"], question["position"], question["index"]
    reader = hub.subscribe(Subscribe(1, tuple(question["kinds"]), position, index, live), write)
    try:
        async with asyncio.timeout(OUTPUTS_WAIT_S if question["wait"] else 0.0):
            await some.wait()
    except TimeoutError:
        pass
    finally:
        reader.close()
    following = hub.place(reader.cursor) or (position, index)
    head = {"next": following, "dropped": reader.dropped, "generation": core.generation}
    return _packed(head, bytes(rows))


_OUTPUTS_HEAD: Final = 16 + 16  # of an Outputs message, before its rows


# --- on the replica that is asked ---


class Reader:
    """States and tables of all lanes. Any thread but the loop's; waits for the answers."""

    def __init__(self, app: "App", calls: "Calls", lanes: int, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._calls = calls
        self._lanes = lanes
        self.loop = loop
        self.names = Names(calls, lanes, loop)

    def state(self, actor: Any, key: int) -> State | None:
        """The state of a key as of its lane's position, or None. ProtocolError: not_ready when nobody answers."""
        found = self._actor(actor)
        lane = int(lanes_of(np.array([key], "u8"), self._lanes)[0])
        head, data = self._wait(self._ask(lane, "state", {"actor": found.name, "key": int(key)}))
        if not head["found"]:
            return None
        if head["layout"] != str(found.layout.dtype):
            raise _of_another_app(lane)
        self.names.note(key, head["name"])
        return State(found.layout.dtype, bytes(data), key, head["position"], lane=lane, generation=head["generation"])

    def table(self, actor: Any, columns: Sequence[str] | None = None) -> Table:
        """All keys of an actor, lane by lane; each lane is as of its own position (`positions`, `generations`)."""
        found = self._actor(actor)
        chosen = None if columns is None else list(columns)
        for name in chosen or ():
            if name != "key" and found.layout.find(name) is None:
                known = ", ".join(field.name for field in found.layout.fields)
                raise KeyError(f"no column {name!r}; the state has {known}")
        answers = self._wait(self._ask_all("table", {"actor": found.name, "columns": chosen}))
        parts: dict[str, list[Any]] = {}
        wanted: dict[str, tuple[str, list[int]]] = {"key": (np.dtype("u8").str, [])} | _columns(found.layout.dtype)
        for lane, (head, data) in enumerate(answers):
            at, given = 0, {name: (dtype, shape[1:]) for name, dtype, shape in head["columns"]}
            if given != {name: wanted[name] for name in (wanted if chosen is None else given) if name in wanted}:
                raise _of_another_app(lane)
            for name, dtype, shape in head["columns"]:
                count = int(np.prod(shape, dtype="i8"))
                array = np.frombuffer(data, dtype, count, at).reshape(shape)
                at += array.nbytes
                parts.setdefault(name, []).append(array)
        positions = tuple(head["position"] for head, _ in answers)
        generations = tuple(head["generation"] for head, _ in answers)
        whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        return Table(whole, sum(positions), positions=positions, generations=generations)

    def _actor(self, actor: Any) -> Any:
        for known in self._app.actors:
            if actor is known or actor == known.name:
                return known
        names = ", ".join(known.name for known in self._app.actors)
        raise KeyError(
            f"no actor {getattr(actor, 'name', actor)!r} in app {self._app.name!r}; it has {names or 'none'}"
        )

    async def _ask(self, lane: int, verb: str, question: dict[str, Any]) -> tuple[dict[str, Any], memoryview]:
        return await ask(self._calls, lane, verb, question)

    async def _ask_all(self, verb: str, question: dict[str, Any]) -> list[tuple[dict[str, Any], memoryview]]:
        return list(await asyncio.gather(*(self._ask(lane, verb, question) for lane in range(self._lanes))))

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()


class Names(Mapping[int, str]):
    """The texts of all lanes' keys, as of a moment ago. In a thread what is old is asked for again; on the loop not."""

    def __init__(self, calls: "Calls", lanes: int, loop: asyncio.AbstractEventLoop) -> None:
        self._calls = calls
        self._lanes = lanes
        self._loop = loop
        self._known: dict[int, str] = {}
        self._until = 0.0
        self._lock = threading.Lock()

    def note(self, key: int, text: str | None) -> None:
        """What an answer told of one key."""
        if text is not None:
            self._known[key] = text

    def _now(self) -> dict[int, str]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with self._lock:
                if time.monotonic() >= self._until:
                    asking = ask_all_json(self._calls, self._lanes, "names")
                    lanes = asyncio.run_coroutine_threadsafe(asking, self._loop).result()
                    self._known = {int(key): text for lane in lanes for key, text in lane.items()}
                    self._until = time.monotonic() + NAMES_S
        return self._known

    def __getitem__(self, key: int) -> str:
        return self._now()[key]

    def __iter__(self) -> Iterator[int]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


def _columns(dtype: "np.dtype[Any]") -> dict[str, tuple[str, list[int]]]:
    """Name -> type and shape of a value, for each field of a state."""
    fields: Mapping[str, Any] = dtype.fields or {}
    return {name: (field[0].base.str, list(field[0].shape)) for name, field in fields.items()}


def _of_another_app(lane: int) -> ProtocolError:
    """While an app is replaced, lanes of the former and of the new one have states of different shapes."""
    return ProtocolError(
        Code.NOT_READY, f"lane {lane} is at a replica of another version of the app; ask again when all are of one"
    )


async def ask(
    calls: "Calls", lane: int, verb: str, question: dict[str, Any], *, within_s: float = ASK_S
) -> tuple[dict[str, Any], memoryview]:
    """Head and data of a lane's answer. Loop thread."""
    asked = json.dumps(question | {"lane": lane}).encode()
    return _unpacked(await calls.ask(lane, verb, asked, within_s=within_s, much=True))


async def ask_all_json(calls: "Calls", lanes: int, verb: str) -> list[Any]:
    """The JSON answers of all lanes. Loop thread."""

    async def one(lane: int) -> Any:
        asked = json.dumps({"lane": lane}).encode()
        return json.loads(await calls.ask(lane, verb, asked, within_s=ASK_S, much=True))

    return list(await asyncio.gather(*(one(lane) for lane in range(lanes))))


def _packed(head: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(head).encode()
    return _HEAD.pack(len(text)) + text + data


def _unpacked(answer: bytes) -> tuple[dict[str, Any], memoryview]:
    if len(answer) < _HEAD.size:
        raise ProtocolError(Code.LENGTH, "an answer of another replica ends within its head")
    (length,) = _HEAD.unpack_from(answer)
    view = memoryview(answer)
    return json.loads(bytes(view[_HEAD.size : _HEAD.size + length])), view[_HEAD.size + length :]


Answer = Callable[["LaneCore", dict[str, Any]], Any]
ANSWERS: Final[dict[str, Answer]] = {
    "state": answer_state,
    "table": answer_table,
    "producers": answer_producers,
    "names": answer_names,
    "outputs": answer_outputs,
}
