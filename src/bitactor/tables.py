"""States as Python sees them: one key's, or a table of all keys that data frames and SQL engines read by Arrow."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitactor._core._arrow import schema_capsule, stream_capsule
from bitactor.schema import StateLayout

Column = npt.NDArray[Any]


class State:
    """The state of one key at a step boundary; a copy, never changes. Fields are attributes; dict(state) works.

    lane, generation: of several lanes, the one it is of, at whose position, and of which owner; None with one lane.
    """

    __slots__ = ("_record", "generation", "key", "lane", "position")

    def __init__(
        self,
        dtype: "np.dtype[Any]",
        raw: bytes,
        key: int,
        position: int,
        lane: int | None = None,
        generation: int | None = None,
    ) -> None:
        self._record = np.frombuffer(raw, dtype, 1)[0]
        self.key = key
        self.position = position  # signals handled before this reading
        self.lane = lane
        self.generation = generation

    def __getattr__(self, name: str) -> Any:
        try:
            value = self._record[name]
        except (ValueError, IndexError, KeyError):
            raise AttributeError(f"the state has no field {name!r}; it has {', '.join(self.keys())}") from None
        return value.item() if value.ndim == 0 else value

    def keys(self) -> tuple[str, ...]:
        """Names of the fields."""
        return self._record.dtype.names or ()

    def to_bytes(self) -> bytes:
        """The fields' bytes, in the layout of the actor's state."""
        return bytes(self._record.tobytes())

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self.key == other.key and bool(self._record == other._record)

    def __hash__(self) -> int:
        return hash((self.key, self._record.tobytes()))

    def __repr__(self) -> str:
        return f"State(key={self.key}, {', '.join(f'{name}={self[name]!r}' for name in self)})"


class Table:
    """Columns of all keys of an actor at one step boundary: `key` (u8) first, then fields of the states.

    columns: name -> array of len(table) rows; a fixed array field has shape (rows, n). position: signals handled
    before. pandas, Polars, DuckDB and pyarrow read the Table itself, without copying (bool columns are packed).
    positions, generations: of several lanes, each lane's position and its owner's generation; position is their sum.
    """

    def __init__(
        self,
        columns: dict[str, Column],
        position: int,
        positions: tuple[int, ...] = (),
        generations: tuple[int, ...] = (),
    ) -> None:
        self.columns = columns
        self.position = position
        self.positions = positions
        self.generations = generations

    def __len__(self) -> int:
        return len(self.columns["key"])

    def __getitem__(self, name: str) -> Column:
        if name not in self.columns:
            raise KeyError(f"no column {name!r}; the table has {', '.join(self.columns)}")
        return self.columns[name]

    def to_numpy(self) -> Column:
        """One structured array, a row a key."""
        dtype = np.dtype([(name, c.dtype, c.shape[1:]) for name, c in self.columns.items()])
        rows = np.empty(len(self), dtype)
        for name, values in self.columns.items():
            rows[name] = values
        return rows

    def __arrow_c_schema__(self) -> object:
        """The Arrow schema (PyCapsule interface)."""
        return schema_capsule(*self._arrow())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table as an Arrow stream of one batch (PyCapsule interface); requested_schema is not obeyed."""
        return stream_capsule(*self._arrow())

    def _arrow(self) -> tuple[list[str], list[Column], int]:
        return list(self.columns), [np.ascontiguousarray(c) for c in self.columns.values()], len(self)

    def __repr__(self) -> str:
        return f"<Table of {len(self)} rows: {', '.join(f'{n} {c.dtype.str[1:]}' for n, c in self.columns.items())}>"


def read_table(engine: Any, actor: int, layout: StateLayout, columns: Sequence[str] | None) -> Table:
    """The table of one actor of an engine. KeyError for a column the state does not have."""
    names = [f.name for f in layout.fields]
    chosen = names if columns is None else [name for name in columns if name != "key"]
    for name in chosen:
        if name not in names:
            raise KeyError(f"no column {name!r}; the state has {', '.join(names)}")
    dtypes = [layout.dtype[name] for name in chosen]
    offsets = [layout.find(name).offset for name in chosen]  # type: ignore[union-attr]

    def allocate(rows: int) -> list[Column]:
        return [np.empty(rows, "u8"), *(np.empty((rows, *d.shape), d.base) for d in dtypes)]

    arrays, rows, position = engine._rows(actor, offsets, [d.itemsize for d in dtypes], allocate)
    return Table(dict(zip(["key", *chosen], (a[:rows] for a in arrays), strict=True)), position)
