"""Records in the making, and what records do to the tables: the same effects live and on replay.

A record is filled on the loop's thread, then belongs to the writer until it reports back, then to the loop again.
"""

import asyncio
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from bitactor.protocol.messages import EraseKey, ForgetProducer, Name, Part, Producer, Type, decode_message
from bitactor.runtime.tables import TableError, Tables

if TYPE_CHECKING:
    from bitactor.protocol.errors import ProtocolError
    from bitactor.protocol.records import RecordBuilder
    from bitactor.telemetry import FrameMark, RecordTimes

Effect = tuple[Any, ...]  # (a method of Tables, its arguments...)

_FRAME: Final = struct.Struct(">QIIQ")  # of a data frame, at offset 8: producer, epoch, count, sequence
FRAME_AT: Final = 8


def frame_place(frame: memoryview | bytes) -> tuple[int, int, int, int]:
    """(producer, epoch, count, sequence) of a frame's header, unchecked."""
    return _FRAME.unpack_from(frame, FRAME_AT)


class OpenRecord:
    """A record being filled, then written.

    effects: in order, what it does to the tables. erased: keys that no actor holds after its signals. advanced: for
    each producer in it, the `next` it leaves. names: keys it names or erases. generation: see Admission. since: when
    its first item came, by time.perf_counter. position: signals in the log up to its end, set by the writer. marks: of
    its traced frames; times: what happened to it, set by the writer when it has marks.
    """

    __slots__ = (
        "_done",
        "advanced",
        "builder",
        "effects",
        "erased",
        "generation",
        "marks",
        "names",
        "position",
        "since",
        "times",
    )

    def __init__(self, builder: "RecordBuilder", generation: int) -> None:
        self.builder = builder
        self.generation = generation
        self.effects: list[Effect] = []
        self.erased: list[int] = []
        self.advanced: dict[Any, int] = {}  # by admission's Entry, or a lane's Ahead
        self.names: list[int] = []
        self.since = 0.0
        self.position = 0
        self.marks: list[FrameMark] = []
        self.times: RecordTimes | None = None
        self._done: asyncio.Future[None] | None = None

    def wait(self) -> "asyncio.Future[None]":
        """Done when the record is durable and applied; ProtocolError when it was refused. Also later. Loop thread."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        return self._done

    def settle(self, error: "ProtocolError | None") -> None:
        """Tell who waits, and who asks later. Loop thread."""
        done = self.wait()
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
            done.exception()  # who waited may be gone; then nobody needs to hear of it


def effects_of(items: Iterable[tuple[int, memoryview]]) -> tuple[list[Effect], list[int]]:
    """The effects of a record read back from the log, in order, and the keys that it erases from actors."""
    effects: list[Effect] = []
    erased: list[int] = []
    told_by_part = False
    for kind, data in items:
        if kind == Type.DATA:
            if not told_by_part:
                producer, epoch, count, sequence = frame_place(data)
                effects.append((Tables.frame, producer, epoch, sequence, count))
            told_by_part = False
            continue
        match decode_message(data):
            case Part(producer, epoch, begin, end, after, floor, lanes, offsets):
                effects.append((Tables.part, producer, epoch, after, floor, (begin, end, lanes)))
                told_by_part = bool(offsets)
            case Name(key, text):
                effects.append((Tables.name, key, text))
            case Producer(id=id_, epoch=epoch, identity=identity, name=name):
                effects.append((Tables.register, id_, epoch, identity, name))
            case ForgetProducer(id_):
                effects.append((Tables.forget, id_))
            case EraseKey(key):
                effects.append((Tables.erase, key))
                erased.append(key)
            case other:
                raise TableError(f"a record holds a message that has no place in a log: {other!r}")
    return effects, erased


def take_effect(tables: Tables, effects: Iterable[Effect]) -> None:
    """Change the tables as a record does. TableError when it does not follow from those before."""
    for method, *arguments in effects:
        method(tables, *arguments)
