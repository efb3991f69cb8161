"""The process that runs one SELECT: `python -m bitactor.admin.query_process TABLES_FD MEMORY_BYTES SECONDS`.

A process of its own, because SQL can ask for more memory or time than DuckDB gives up in time: here that ends the
query and nothing else. It knows nothing of the service but the tables that the statement names, which it maps from
shared memory. One line of JSON each way, then the answer:

    in   {"sql", "tables", "limit", "as_text", "arrow"}     tables: names that there are
    out  {"need": ["vwap"], "names": true}                  or a refusal, and the end
    in   {"vwap": {"columns": [[name, dtype, shape, offset]], "position"}, ...}      "": the names of keys
    out  {"status": 200, "type": "application/json"}, then the body until the end of the stream

What may run is decided on the parsed statement: one SELECT whose tables are actors (or its own WITH names) and whose
table functions are of a short list. So no file, network, setting, attached database, extension or Python object can be
named; DuckDB is locked as well.
"""

import json
import mmap
import os
import resource
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final

import duckdb
import numpy as np

from bitactor.admin.values import PIECE, json_pieces, plain
from bitactor.tables import Table

TABLE_FUNCTIONS: Final = frozenset({"range", "generate_series", "unnest"})
MEMORY_SHARE: Final = 0.5  # of the process's, for DuckDB; the rest for what it does not count
_ARROW_PIECE: Final = 8192
_WIDE: Final = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT"})


class Rejected(Exception):  # noqa: N818
    """What may not or cannot be run."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = {"status": status, "code": code, "message": message}


def connect(memory_bytes: int) -> "duckdb.DuckDBPyConnection":
    """An empty database in memory that reaches nothing outside."""
    locked: dict[str, Any] = {
        "enable_external_access": False,
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "allow_community_extensions": False,
        "allow_unsigned_extensions": False,
        "allow_persistent_secrets": False,
        "python_enable_replacements": False,
        "memory_limit": f"{int(memory_bytes * MEMORY_SHARE)}B",
        "max_temp_directory_size": "0KB",
        "temp_directory": "",
        "threads": 1,
    }
    return duckdb.connect(":memory:", config=locked)


def check(connection: Any, sql: str, known: list[str]) -> tuple[list[str], bool]:
    """The tables that a permitted statement reads, and whether names of keys may matter. Rejected: any other."""
    parsed = json.loads(connection.execute("select json_serialize_sql(?)", [sql]).fetchall()[0][0])
    if parsed["error"]:
        message = str(parsed["error_message"])
        if message.startswith("Only SELECT"):
            message = "one SELECT is what may be asked here; nothing else is run"
        raise Rejected(400, "bad_sql", message)
    if len(parsed["statements"]) != 1:
        raise Rejected(400, "bad_sql", f"one SELECT at a time; these are {len(parsed['statements'])} statements")
    nodes = list(_nodes(parsed))
    own = {entry["key"].lower() for node in nodes if "cte_map" in node for entry in node["cte_map"]["map"]}
    by_lower = {name.lower(): name for name in known}
    tables = []
    for node in nodes:
        kind = node.get("type")
        if kind == "TABLE_FUNCTION" and node["function"]["function_name"].lower() not in TABLE_FUNCTIONS:
            may = ", ".join(sorted(TABLE_FUNCTIONS))
            name = node["function"]["function_name"]
            raise Rejected(400, "not_allowed", f"{name}() may not be used here as a table; {may} may")
        if kind == "SHOW_REF" and node.get("table_name"):
            raise Rejected(400, "not_allowed", f"the tables are {', '.join(known)}; describe one of them")
        if kind == "BASE_TABLE":
            name, qualified = node["table_name"], node["schema_name"] or node["catalog_name"]
            if qualified or (name.lower() not in by_lower and name.lower() not in own):
                full = ".".join(filter(None, (node["catalog_name"], node["schema_name"], name)))
                raise Rejected(400, "unknown_table", f"no table {full!r}; there are {', '.join(known)}")
            if name.lower() in by_lower:
                tables.append(by_lower[name.lower()])
    named = any(node.get("type") in ("STAR", "SHOW_REF") or "name" in node.get("column_names", ()) for node in nodes)
    return list(dict.fromkeys(tables)), named


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a parsed statement."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _register(connection: Any, name: str, table: Table, names: dict[str, Any]) -> None:
    """Make the table known; with its keys' names beside them, where there are any and no field is called so."""
    if not names or "name" in table.columns:
        connection.register(name, table)
        return
    connection.register(f"{name} keys", table)
    connection.register(f"{name} names", names)
    connection.execute(
        f'create temp view "{name}" as select t.key, n.name, t.* exclude (key) '  # noqa: S608
        f'from "{name} keys" t left join "{name} names" n on t.key = n.key'
    )


def _mapped(shared: mmap.mmap, given: dict[str, Any]) -> Table:
    columns = {
        name: np.frombuffer(shared, dtype, count=int(np.prod(shape)), offset=offset).reshape(shape)
        for name, dtype, shape, offset in given["columns"]
    }
    return Table(columns, given["position"])


def _names(table: Table | None) -> dict[str, Any]:
    """Keys and their names; nothing when none are used."""
    if table is None:
        return {}
    data, ends = table["texts"].tobytes(), np.cumsum(table["bytes"], dtype="i8").tolist()
    texts = [data[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
    return {"key": table["key"], "name": np.array(texts, object)}


def serve(tables_fd: int, memory_bytes: int, seconds: float) -> None:
    """Read what is asked, answer, and be done."""
    asked = json.loads(sys.stdin.readline())
    connection = connect(memory_bytes)
    out = sys.stdout.buffer

    def say(line: dict[str, Any]) -> None:
        out.write(json.dumps(line).encode() + b"\n")
        out.flush()

    late = threading.Event()

    def stop() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    try:
        needed, named = check(connection, asked["sql"], asked["tables"])
        say({"need": needed, "names": named})
        given = json.loads(sys.stdin.readline())
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        shared = mmap.mmap(tables_fd, 0, prot=mmap.PROT_READ)
        tables = {name: _mapped(shared, one) for name, one in given.items()}
        names = _names(tables.pop("", None))
        for name, table in tables.items():
            _register(connection, name, table, names)
        timer.start()
        connection.execute("set lock_configuration = true")
        connection.execute(asked["sql"])
        answer = _arrow if asked["arrow"] else _json
        head, body = answer(connection, asked, {name: table.position for name, table in tables.items()})
        say({"status": 200} | head)
        for piece in body:
            out.write(piece)
    except Rejected as rejected:
        say(rejected.answer)
    except (duckdb.Error, MemoryError) as error:
        say(_told(error, late=late.is_set(), seconds=seconds))
    out.flush()


def _told(error: BaseException, *, late: bool, seconds: float) -> dict[str, Any]:
    if late or isinstance(error, duckdb.InterruptException):
        return {"status": 408, "code": "too_slow", "message": f"the query took more than {seconds:g} s and was stopped"}
    if isinstance(error, (MemoryError, duckdb.OutOfMemoryException)):
        return {"status": 400, "code": "too_much_memory", "message": "the query needs more memory than queries may use"}
    said = str(error).partition("\n\nPossible solutions")[0]
    said = said.partition(", due to the following Python exception")[0][:2000]  # no traceback for the asker
    return {"status": 400, "code": "bad_sql", "message": said}


def _json(connection: Any, asked: dict[str, Any], tables: dict[str, int]) -> tuple[dict[str, Any], Iterator[bytes]]:
    columns = [{"name": str(column[0]), "type": str(column[1])} for column in connection.description]
    limit: int = asked["limit"]
    rows: list[tuple[Any, ...]] = []
    while len(rows) <= limit and (piece := connection.fetchmany(PIECE)):
        rows += piece
    head = {"position": min(tables.values(), default=None), "tables": tables, "columns": columns}
    head["truncated"] = len(rows) > limit
    wide = [asked["as_text"] and column["type"] in _WIDE for column in columns]
    pieces = (
        [[plain(v, as_text=text) for v, text in zip(row, wide, strict=True)] for row in rows[at : at + PIECE]]
        for at in range(0, len(rows), PIECE)
    )
    del rows[limit:]
    return {"type": "application/json"}, json_pieces(head, pieces)


def _arrow(connection: Any, asked: dict[str, Any], tables: dict[str, int]) -> tuple[dict[str, Any], Iterator[bytes]]:
    import pyarrow as pa

    reader = connection.to_arrow_reader(_ARROW_PIECE)
    batches, left = [], asked["limit"]
    truncated = False
    for batch in reader:
        truncated = len(batch) > left
        batches.append(batch[:left])
        left -= len(batches[-1])
        if truncated:
            break
    sink = pa.BufferOutputStream()
    metadata = {"position": str(min(tables.values(), default="")), "truncated": str(truncated).lower()}
    with pa.ipc.new_stream(sink, reader.schema.with_metadata(metadata)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return {"type": "application/vnd.apache.arrow.stream"}, iter([sink.getvalue().to_pybytes()])


if __name__ == "__main__":
    os.nice(5)  # the engine comes first; with less of a busy machine a query would not end in time
    serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
