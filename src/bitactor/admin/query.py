"""SQL over live state: each query in a process of its own that gets the tables it names and ends with it.

Loop thread. What the process may run, and how it is locked, stands in query_process.py; here are its limits: memory
(RLIMIT_DATA beside the mapped tables), time (it is killed), queries at once, bytes of the answer.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from bitactor.admin.access import Refused
from bitactor.admin.work import Work
from bitactor.tables import Table

SQL_BYTES_MAX: Final = 16_384
QUERY_S: Final = 10.0
QUERIES_MAX: Final = 2  # at once; others wait, as Work lets them
WAITING_MAX: Final = 8
MEMORY_BYTES: Final = 768 << 20
ROWS_DEFAULT: Final = 1_000
ROWS_MAX: Final = 100_000
ANSWER_BYTES_MAX: Final = 64 << 20
_START_S: Final = 10.0
NAMES: Final = ""  # the table of names among the others


class Queries:
    """Runs SELECTs. read: how each table is read, by its name; names: of text keys, now."""

    def __init__(self, work: Work, tables: list[str], read: Callable[[str], Table]) -> None:
        self._work = work
        self._tables = tables
        self._read = read
        self._turn = asyncio.Semaphore(QUERIES_MAX)
        self._pending = 0

    async def run(
        self,
        sql: str,
        names: Mapping[int, str],
        *,
        limit: int = ROWS_DEFAULT,
        as_text: bool = False,
        arrow: bool = False,
        seconds: float = QUERY_S,
    ) -> tuple[str, bytes]:
        """Content type and body of the answer to one SELECT.

        Refused: 400 for what may not run, what SQL does not take and what needs too much memory; 408 for too much
        time; 413 for too long a query or answer; 503 when too many queries wait.
        """
        if len(sql.encode()) > SQL_BYTES_MAX:
            raise Refused(413, "too_large", f"a query has at most {SQL_BYTES_MAX} bytes")
        if self._pending >= QUERIES_MAX + WAITING_MAX:
            raise Refused(503, "busy", "too many queries are being answered; try again", retry_after="1")
        asked = {"sql": sql, "tables": self._tables, "limit": limit, "as_text": as_text, "arrow": arrow}
        self._pending += 1
        try:
            async with self._turn:
                return await self._in_process(asked, names, seconds)
        finally:
            self._pending -= 1

    async def _in_process(self, asked: dict[str, Any], names: Mapping[int, str], seconds: float) -> tuple[str, bytes]:
        shared = os.memfd_create("bitactor query")
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "bitactor.admin.query_process",
                str(shared), str(MEMORY_BYTES), str(seconds),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(shared,),
                env={name: value for name, value in os.environ.items() if not name.startswith("BITACTOR_")},
            )  # fmt: skip
            async with asyncio.timeout(_START_S):
                need = await _exchange(process, asked)
            if "need" not in need:
                raise Refused(need["status"], need["code"], need["message"])
            given = await self._work.run(self._share, shared, need["need"], names if need["names"] else {})
            async with asyncio.timeout(seconds + 1.0):
                head = await _exchange(process, given)
                if head["status"] != 200:
                    raise Refused(head["status"], head["code"], head["message"])
                return head["type"], await _rest(process)
        except TimeoutError:
            raise Refused(408, "too_slow", f"the query took more than {seconds:g} s and was stopped") from None
        finally:
            os.close(shared)
            if process is not None:
                await _end(process)

    def _share(self, shared: int, wanted: list[str], names: Mapping[int, str]) -> dict[str, Any]:
        """Read the tables into the shared memory; where each column lies."""
        told: dict[str, Any] = {}
        end = 0
        tables = {name: self._read(name) for name in wanted}
        if names and wanted:
            tables[NAMES] = _names_table(names)
        for name, table in tables.items():
            columns = []
            for column, values in table.columns.items():
                data = np.ascontiguousarray(values)
                columns.append((column, data.dtype.str, data.shape, end))
                end = _write(shared, data, end)
            told[name] = {"columns": columns, "position": table.position}
        os.ftruncate(shared, max(end, 64))
        return told


def _names_table(names: Mapping[int, str]) -> Table:
    """Keys, the bytes of each name, and all names' bytes one after another."""
    known = names.copy() if isinstance(names, dict) else dict(names)  # the log's writer goes on
    texts = [text.encode() for text in known.values()]
    columns = {
        "key": np.fromiter(known, "u8", len(known)),
        "bytes": np.fromiter(map(len, texts), "u4", len(texts)),
        "texts": np.frombuffer(b"".join(texts), "u1"),
    }
    return Table(columns, 0)


def _write(shared: int, data: "np.ndarray[Any, Any]", at: int) -> int:
    """Write an array at an offset; the next offset, 64-byte aligned."""
    view = memoryview(data.reshape(-1).view("u1"))  # type: ignore[arg-type]
    done = 0
    while done < len(view):
        done += os.pwrite(shared, view[done:], at + done)
    return (at + done + 63) & ~63


async def _exchange(process: asyncio.subprocess.Process, said: dict[str, Any]) -> Any:
    """Tell the process a line, and hear one. Refused when it ended instead."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(said).encode() + b"\n")
        await process.stdin.drain()
        return json.loads(await process.stdout.readline())
    except (ConnectionError, ValueError):
        raise Refused(400, "too_much_memory", "the query ended its process: it needs too much memory") from None


async def _rest(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    body = bytearray()
    while piece := await process.stdout.read(1 << 18):
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise Refused(413, "too_large", f"the answer has more than {ANSWER_BYTES_MAX} bytes; ask for less")
    if await process.wait() != 0:
        raise Refused(400, "too_much_memory", "the query ended its process: it needs too much memory")
    return bytes(body)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
