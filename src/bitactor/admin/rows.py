"""Rows of an actor's table: filtered, sorted, cut. Any thread; works on copies that the engine gave."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bitactor.admin.access import Refused
from bitactor.admin.values import PIECE, plain
from bitactor.schema import StateLayout
from bitactor.signals import text_key
from bitactor.tables import Table

ROWS_DEFAULT: Final = 100
ROWS_MAX: Final = 10_000
_CONDITION: Final = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "=": np.equal,
    "!=": np.not_equal,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked of a table. conditions: (column, comparison, value); sort: a column or None; limit: rows."""

    columns: tuple[str, ...]
    conditions: tuple[tuple[str, str, Any], ...]
    sort: str | None
    descending: bool
    limit: int | None

    @property
    def needed(self) -> list[str]:
        """Columns to read."""
        names = [*self.columns, *(name for name, _, _ in self.conditions), *([self.sort] if self.sort else [])]
        return [name for name in dict.fromkeys(names) if name != "key"]


def parse(layout: StateLayout, query: Any) -> Selection:
    """A Selection of query parameters (`columns`, `filter`, `sort`, `limit`). Refused with 400 says what is wrong."""
    known = {"key": "u8"} | {field.name: field.type for field in layout.fields}
    scalar = {name for name in known if (field := layout.find(name)) is None or field.count is None}

    def column(name: str, what: str) -> str:
        if name not in known:
            raise Refused(400, "unknown_column", f"{what}: no column {name!r}; there are {', '.join(known)}")
        if what != "columns" and name not in scalar:
            raise Refused(400, "array_column", f"{what}: {name} is an array; use SQL to look into it")
        return name

    wanted = query.get("columns")
    chosen = [column(name.strip(), "columns") for name in wanted.split(",")] if wanted else known
    conditions = []
    for text in query.getlist("filter"):
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise Refused(400, "bad_filter", f"filter {text!r}: write a comparison, such as volume>=100")
        name = column(match[1], "filter")
        conditions.append((name, match[2], _value(name, known[name], match[3])))
    sort = query.get("sort") or ""
    by = column(sort.lstrip("-+"), "sort") if sort else None
    limit = integer(query.get("limit"), "limit", ROWS_DEFAULT, ROWS_MAX)
    return Selection(tuple(dict.fromkeys(["key", *chosen])), tuple(conditions), by, sort.startswith("-"), limit)


def integer(given: str | None, what: str, default: int, most: int) -> int:
    """A query parameter that is a whole number from 0 to `most`."""
    if given is None or given == "":
        return default
    if not given.isascii() or not given.isdigit() or len(given) > 12 or int(given) > most:
        raise Refused(400, f"bad_{what}", f"{what} is {given[:40]!r}: give 0 to {most}")
    return int(given)


def _value(name: str, kind: str, text: str) -> Any:
    try:
        if kind == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if name == "key":
            return key_of(text)
        return float(text) if kind.startswith("f") else int(text)
    except (KeyError, ValueError):
        raise Refused(400, "bad_filter", f"filter on {name}: {text!r} is not a value of type {kind}") from None


def key_of(text: str) -> int:
    """The key that a text names: decimal digits are the number itself, anything else is a text key."""
    if text.isascii() and text.isdigit():
        if len(text) > 20 or int(text) >= 1 << 64:
            raise Refused(400, "bad_key", f"key {text[:40]}: a number key is below 2**64")
        return int(text)
    return text_key(text)


def select(table: Table, asked: Selection) -> tuple[Table, int]:
    """The rows asked for, in order, and how many matched before the limit."""
    chosen: npt.NDArray[np.intp] | None = None
    for name, comparison, value in asked.conditions:
        matched = np.flatnonzero(_COMPARE[comparison](table[name] if chosen is None else table[name][chosen], value))
        chosen = matched if chosen is None else chosen[matched]
    count = len(table) if chosen is None else len(chosen)
    limit = count if asked.limit is None else min(asked.limit, count)
    if asked.sort is not None:
        values = table[asked.sort] if chosen is None else table[asked.sort][chosen]
        order = sorted_first(values, limit, descending=asked.descending)
        chosen = order if chosen is None else chosen[order]
    elif chosen is None:
        chosen = np.arange(limit)
    picked = chosen[:limit]
    return Table({name: table[name][picked] for name in asked.columns}, table.position), count


def sorted_first(values: npt.NDArray[Any], limit: int, *, descending: bool) -> npt.NDArray[np.intp]:
    """Indices of the first `limit` values in order; equal ones as they stand, NaN last either way."""
    good = np.flatnonzero(values == values)  # NaN is not itself
    few = min(limit, len(good))
    if 0 < few < len(good) // 4:  # what cannot be among the first is not sorted
        kept = values[good]
        edge = np.partition(kept, len(kept) - few if descending else few - 1)
        bound = edge[len(kept) - few] if descending else edge[few - 1]
        good = good[kept >= bound if descending else kept <= bound]
    if descending:  # the reverse of a stable sort of the reverse keeps equal ones as they stand
        order = good[::-1][np.argsort(values[good][::-1], kind="stable")][::-1]
    else:
        order = good[np.argsort(values[good], kind="stable")]
    return np.concatenate([order, np.flatnonzero(values != values)])[:limit]


def with_names(table: Table, names: Mapping[int, str]) -> dict[str, Sequence[Any]]:
    """The table's columns; after `key` its name where one is known, when text keys are used at all."""
    columns: dict[str, Sequence[Any]] = dict(table.columns)  # type: ignore[arg-type]
    if not names or "name" in columns:
        return columns
    known = [names.get(key) for key in table["key"].tolist()]
    return {"key": columns.pop("key"), "name": known} | columns


def column_rows(columns: Mapping[str, Sequence[Any]], *, integers_as_text: bool) -> Iterator[list[list[Any]]]:
    """Rows of columns, some at a time."""
    wide = {n: integers_as_text and getattr(c, "dtype", None) in (np.uint64, np.int64) for n, c in columns.items()}
    count = len(next(iter(columns.values())))
    for start in range(0, count, PIECE):
        lists = []
        for name, values in columns.items():
            piece: Any = values[start : start + PIECE]
            piece = piece.tolist() if hasattr(piece, "tolist") else piece
            lists.append([plain(value, as_text=wide[name]) for value in piece])
        yield [list(row) for row in zip(*lists, strict=True)]
