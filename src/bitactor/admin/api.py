"""The JSON and Arrow API under /api/v1. Loop thread; tables are read and cut by Work, SQL by Queries.

Every answer carries `position`, the signals handled before what it shows, as a member and as the header
bitactor-position. Errors are {"status", "code", "message"}; see Refused.
"""

import asyncio
import dataclasses
import importlib.util
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bitactor.admin import query as sql
from bitactor.admin import rows
from bitactor.admin.access import Refused
from bitactor.admin.metrics import TICK_BOUNDS, tick_buckets
from bitactor.admin.values import json_pieces, plain
from bitactor.admin.work import Work
from bitactor.engine import ClosedError
from bitactor.signals import text_key
from bitactor.statistics import Ticks
from bitactor.tables import Table

BODY_BYTES_MAX: Final = 65_536
BODY_S: Final = 10.0
POSITION: Final = "bitactor-position"
ARROW: Final = "application/vnd.apache.arrow.stream"


class Api:
    """Handlers over one service."""

    def __init__(self, service: Any, work: Work) -> None:
        self._service = service
        self._work = work
        self._queries = sql.Queries(work, [actor.name for actor in service.app.actors], self._table)

    def _table(self, name: str) -> Table:
        table: Table = self._service.engine.table(name)
        return table

    # --- what there is ---

    async def kinds(self, request: Request) -> Response:
        """Every declared kind."""
        kinds = [
            {"name": kind.name, "number": kind.number, "value": kind.value, "aux": kind.aux}
            for kind in self._service.app.kinds
        ]
        return self._answer({"kinds": kinds})

    async def actors(self, request: Request) -> Response:
        """Every actor: its kinds, the fields of its state, its limits, how many keys it has."""
        counted = {actor.name: actor for actor in self._figures().engine.actors}
        actors = [
            {
                "name": actor.name,
                "kinds": [kind.name for kind in actor.kinds],
                "emits": [kind.name for kind in actor.emits],
                "fields": [{"name": f.name, "type": f.type, "count": f.count} for f in actor.layout.fields],
                "keys": counted[actor.name].keys,
                "tick_budget": actor.tick_budget or None,
                "expire_after_s": actor.idle_ns / 1e9 if actor.idle_ns else None,
            }
            for actor in self._service.app.actors
        ]
        return self._answer({"actors": actors})

    async def statistics(self, request: Request) -> Response:
        """Everything that is counted, and the health."""
        health = self._service.health()
        body = {"time": time.time(), "health": dataclasses.asdict(health), "names": len(self._names())}
        return self._answer(body | {"statistics": figures(self._figures())})

    async def log(self, request: Request) -> Response:
        """The log and its newest snapshot."""
        counted = self._figures()
        return self._answer({"log": figures(counted.log), "snapshot": figures(counted.snapshot)})

    async def producers(self, request: Request) -> Response:
        """The producer table."""
        self._ready()
        known = await self._work.run(self._service.producers)
        as_text = _as_text(request)
        producers = [dataclasses.asdict(one) | {"id": str(one.id) if as_text else one.id} for one in known]
        return self._answer({"producers": producers})

    # --- state ---

    async def state(self, request: Request) -> Response:
        """The state of one key."""
        actor, key = self._actor(request), self._key(request)
        state = await self._engine(self._service.engine.state, actor.name, key)
        if state is None:
            said = f"{actor.name} has no state of key {request.path_params['key'][:80]!r}"
            raise Refused(404, "unknown_key", said)
        as_text = _as_text(request)
        wide = {field.name: as_text and field.type in ("u8", "i8") for field in actor.layout.fields}
        values = {
            name: plain(value.tolist() if hasattr(value, "tolist") else value, as_text=wide[name])
            for name, value in ((name, state[name]) for name in state)
        }
        head = {"actor": actor.name, "key": str(key) if as_text else key, "name": self._service.name_of(key)}
        return self._answer(head | {"state": values}, state.position)

    async def table(self, request: Request) -> Response:
        """Rows of an actor's table, as JSON or as an Arrow stream."""
        actor = self._actor(request)
        arrow = _wants_arrow(request)
        asked = rows.parse(actor.layout, request.query_params)
        if arrow and not request.query_params.get("limit"):
            asked = dataclasses.replace(asked, limit=None)
        as_text, names = _as_text(request), self._names()

        def cut() -> tuple[bytes, int]:
            whole = self._service.engine.table(actor.name, asked.needed)
            table, matched = rows.select(whole, asked)
            if arrow:
                return _arrow_stream(table), table.position
            columns = rows.with_names(table, names)
            head = {
                "position": table.position,
                "actor": actor.name,
                "keys": len(whole),
                "matched": matched,
                "columns": [{"name": n, "type": _type(c)} for n, c in columns.items()],
            }
            return b"".join(json_pieces(head, rows.column_rows(columns, integers_as_text=as_text))), table.position

        body, position = await self._engine(cut)
        return _sent(body, ARROW if arrow else "application/json", position)

    async def query(self, request: Request) -> Response:
        """One SELECT over the actors' tables."""
        given = await _body(request, {"sql": str, "limit": int})
        arrow = _wants_arrow(request)
        self._ready()
        if "sql" not in given:
            raise Refused(400, "bad_body", 'the body is {"sql": "select …"}')
        limit = given.get("limit", sql.ROWS_DEFAULT)
        if not 0 <= limit <= sql.ROWS_MAX:
            raise Refused(400, "bad_limit", f"limit is {limit}: give 0 to {sql.ROWS_MAX}")
        try:
            type_, body = await self._queries.run(
                given["sql"], self._names(), limit=limit, as_text=_as_text(request), arrow=arrow
            )
        except ClosedError:
            raise Refused(503, "not_ready", "the service stops") from None
        return _sent(body, type_, self._position())

    # --- replicas ---

    async def cluster(self, request: Request) -> Response:
        """The replicas and the lanes, as this replica sees them."""
        replica = self._replica()
        return self._answer({"replicas": replica.describe_members(), "lanes": replica.describe_lanes()})

    async def drain(self, request: Request) -> Response:
        """Give the lanes of this replica away, and take none again."""
        await _body(request, {})
        replica = self._replica()
        self._ready()
        await replica.drain()
        return self._answer({"drained": replica.settings.cluster.replica})

    # --- what changes something ---

    async def snapshot(self, request: Request) -> Response:
        """Write a snapshot now."""
        await _body(request, {})
        self._ready()
        try:
            info = await self._service.snapshot_now()
        except RuntimeError as error:
            raise Refused(409, "no_snapshot", str(error)) from None
        return self._answer({"snapshot": dataclasses.asdict(info)}, info.position)

    async def erase(self, request: Request) -> Response:
        """Erase a key from every actor."""
        given = await _body(request, {"key": (int, str), "text": str})
        self._ready()
        if len(given) != 1:
            raise Refused(400, "bad_body", 'the body is {"key": 42}, {"key": "alice"} or, for a text, {"text": "42"}')
        key = text_key(given["text"]) if "text" in given else given["key"]
        key = rows.key_of(key) if isinstance(key, str) else key
        if not 0 <= key < 1 << 64:
            raise Refused(400, "bad_key", f"key {key}: a number key is 0 to 2**64 - 1")
        await self._service.erase_key(key)
        return self._answer({"erased": str(key) if _as_text(request) else key})

    async def forget(self, request: Request) -> Response:
        """Forget a producer."""
        given = await _body(request, {"id": (int, str), "name": str})
        self._ready()
        if len(given) != 1:
            raise Refused(400, "bad_body", 'the body is {"name": "eu-1"} or {"id": 123}')
        try:
            number = text_key(given["name"]) if "name" in given else int(given["id"])
        except ValueError:
            raise Refused(400, "bad_body", f"id {given['id'][:40]!r} is not a number") from None
        try:
            await self._service.forget_producer(number)
        except KeyError as error:
            asked = repr(given.get("name", number))
            raise Refused(404, "unknown_producer", f"no producer {asked}; GET /api/v1/producers lists them") from error
        return self._answer({"forgotten": str(number) if _as_text(request) else number})

    # --- parts ---

    def _replica(self) -> Any:
        if not hasattr(self._service, "describe_lanes"):
            raise Refused(409, "no_cluster", "this service is one process alone: log.kind is not jetstream")
        return self._service

    def _ready(self) -> None:
        health = self._service.health()
        if not health.started or not health.live:
            raise Refused(503, "not_ready", "; ".join(health.reasons) or "not started", retry_after="1")

    def _figures(self) -> Any:
        self._ready()
        return self._service.statistics()

    def _position(self) -> int:
        return int(self._figures().engine.position)

    def _names(self) -> Mapping[int, str]:
        self._ready()
        names: Mapping[int, str] = self._service.names
        return names

    def _actor(self, request: Request) -> Any:
        self._ready()
        name = request.path_params["actor"]
        for actor in self._service.app.actors:
            if actor.name == name:
                return actor
        known = ", ".join(actor.name for actor in self._service.app.actors)
        raise Refused(404, "unknown_actor", f"no actor {name[:80]!r}; there are {known}")

    def _key(self, request: Request) -> int:
        text = request.path_params["key"]
        return text_key(text) if request.query_params.get("text") == "true" else rows.key_of(text)

    async def _engine(self, function: Any, *arguments: Any) -> Any:
        try:
            return await self._work.run(function, *arguments)
        except ClosedError:
            raise Refused(503, "not_ready", "the service stops") from None

    def _answer(self, body: dict[str, Any], position: int | None = None) -> Response:
        position = self._position() if position is None else position
        return JSONResponse({"position": position} | body, headers={POSITION: str(position)})


def figures(value: Any) -> Any:
    """Figures as JSON: dataclasses by their fields; ticks with their distribution instead of raw counts."""
    if isinstance(value, Ticks):
        counts, _ = tick_buckets(value)
        each = [b - a for a, b in zip([0, *counts], counts, strict=False)]
        told = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name != "counts"}
        return told | {"bounds": TICK_BOUNDS, "counts": each}
    if dataclasses.is_dataclass(value):
        return {f.name: figures(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [figures(one) for one in value]
    if isinstance(value, dict):
        return {str(name): figures(one) for name, one in value.items()}
    return plain(value)


def _as_text(request: Request) -> bool:
    given = request.query_params.get("integers", "number")
    if given not in ("number", "text"):
        raise Refused(400, "bad_integers", f"integers is {given[:40]!r}: number or text")
    return given == "text"


def _wants_arrow(request: Request) -> bool:
    if ARROW not in request.headers.get("accept", ""):
        return False
    if importlib.util.find_spec("pyarrow") is None:
        raise Refused(406, "no_arrow", "the service has no pyarrow to write Arrow with: pip install 'bitactor[arrow]'")
    return True


def _arrow_stream(table: Table) -> bytes:
    import pyarrow as pa

    rows_ = pa.table(table)
    rows_ = rows_.replace_schema_metadata({"position": str(table.position)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows_.schema) as writer:
        writer.write_table(rows_)
    return bytes(sink.getvalue())


def _type(column: Any) -> str:
    if not hasattr(column, "dtype"):
        return "text"
    kind = "bool" if column.dtype == bool else str(column.dtype.str[1:])
    return kind if column.ndim == 1 else f"{kind}[{column.shape[1]}]"


_SENT_PIECE: Final = 1 << 18


def _sent(body: bytes, type_: str, position: int) -> Response:
    """A body, sent in pieces, so that a slow reader is waited for and the loop goes on."""

    async def pieces() -> Any:
        for at in range(0, len(body), _SENT_PIECE):
            yield body[at : at + _SENT_PIECE]

    return StreamingResponse(
        pieces(), headers={"content-type": type_, "content-length": str(len(body)), POSITION: str(position)}
    )


async def _body(request: Request, members: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of a request, with no member but these. Refused: too long, too slow, not that."""
    data = await _received(request)
    if not data and not members:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "bad_type", "send the header Content-Type: application/json")
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused(400, "bad_body", "the body is not JSON") from None
    if not isinstance(given, dict):
        raise Refused(400, "bad_body", "the body is a JSON object")
    for name, value in given.items():
        if name not in members:
            raise Refused(400, "bad_body", f"unknown member {name[:40]!r}; there are {', '.join(members) or 'none'}")
        if not isinstance(value, members[name]) or isinstance(value, bool):
            raise Refused(400, "bad_body", f"{name} has the wrong type")
        if isinstance(value, str) and any(character == "\0" or "\ud800" <= character < "\ue000" for character in value):
            raise Refused(400, "bad_body", f"{name} is not a text: it holds half a character, or a zero")
    return given


async def _received(request: Request) -> bytes:
    """The bytes of a request's body, within BODY_BYTES_MAX and BODY_S."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > BODY_BYTES_MAX:
        raise Refused(413, "too_large", f"a body has at most {BODY_BYTES_MAX} bytes", connection="close")
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                data += piece
                if len(data) > BODY_BYTES_MAX:
                    raise Refused(413, "too_large", f"a body has at most {BODY_BYTES_MAX} bytes", connection="close")
    except TimeoutError:
        raise Refused(408, "too_slow", f"the body did not come within {BODY_S:g} s", connection="close") from None
    except ClientDisconnect:
        raise Refused(400, "bad_body", "the body ended early", connection="close") from None
    return bytes(data)
