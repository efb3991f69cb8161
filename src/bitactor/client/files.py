"""Signals out of files that people have: Parquet, Arrow, CSV, JSON lines, NumPy; batch by batch, in the order of rows.

The same file gives the same signals each time, so a sender can go on at a number of signals. Needs pyarrow (extra:
arrow), but for .npy files of whole signals. Functions of any thread; nothing is kept.
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bitactor.schema import Kind
from bitactor.signals import make_signals, value_types

ENDINGS: Final = (".parquet", ".arrow", ".feather", ".ipc", ".csv", ".jsonl", ".ndjson", ".npy", ".npz")
_BATCH_ROWS: Final = 1 << 16
_JSON_BYTES: Final = 1 << 22
_UNITS_NS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_ARROW: Final = {"f8": "float64", "i8": "int64", "u8": "uint64", "f4": "float32", "i4": "int32", "u4": "uint32"}


class FileError(ValueError):
    """A file, or a row and column of it, that gives no signals. The message names them."""


@dataclass(frozen=True)
class Columns:
    """Which columns make signals. time: timestamps, dates, or numbers of time_unit (ns, us, ms, s) since 1970.

    skip_missing: rows without a key, a value or a time are left out; else the first of them is an error. A missing aux
    is 0.
    """

    key: str
    value: str
    aux: str | None = None
    time: str | None = None
    time_unit: str = "ns"
    skip_missing: bool = False

    def __post_init__(self) -> None:
        """ValueError for a unit that is none."""
        if self.time_unit not in _UNITS_NS:
            raise ValueError(f"the time's unit is {self.time_unit!r}: give one of {', '.join(_UNITS_NS)}")

    def names(self) -> list[str]:
        """The columns, each once."""
        return list(dict.fromkeys(name for name in (self.key, self.value, self.aux, self.time) if name))


class Piece(NamedTuple):
    """Some rows of a file as signals; left_out of the rows had something missing."""

    signals: npt.NDArray[Any]
    rows: int
    left_out: int


def read_signals(path: Path, columns: Columns, kind: Kind, key_of: Callable[[str], int]) -> Iterator[Piece]:
    """The signals of a file, of one kind. key_of: the number of a text key, called once a text and batch.

    Without a time column, time is 0. FileError names file, row (from 1) and column; OSError: it cannot be read.
    """
    first = 0
    for batch in _batches(path, columns.names()):
        yield _piece(path, batch, first, columns, kind, key_of)
        first += batch.num_rows


def read_whole_signals(path: Path) -> Iterator[Piece]:
    """The signals of a .npy file that holds an array of them. FileError when it does not."""
    if path.suffix.lower() != ".npy":
        raise FileError(f"{path}: only a .npy file holds whole signals; for columns give --kind, --key and --value")
    array = _load(path)
    try:
        value_types(array.dtype)
    except TypeError as error:
        raise FileError(f"{path}: {error}") from None
    for first in range(0, len(array), _BATCH_ROWS):
        signals = np.ascontiguousarray(array[first : first + _BATCH_ROWS])
        yield Piece(signals, len(signals), 0)


def rows_in(path: Path) -> int | None:
    """How many rows a file has, where it says so; None: it must be read to know."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        import pyarrow.parquet

        return int(pyarrow.parquet.read_metadata(path).num_rows)
    return len(_load(path)) if ending == ".npy" else None


# --- files to batches ---


def _batches(path: Path, names: list[str]) -> Iterator[Any]:
    """Record batches with the named columns, in this order."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise FileError(f"{path} ends in {ending or 'nothing'}: give {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        raise FileError(f"{path}: reading it needs pyarrow: pip install 'bitactor[arrow]'") from None
    try:
        if ending in (".jsonl", ".ndjson"):
            yield from _json_lines(path, names)
            return
        has, batches = _opened(path, ending, names)
        for name in names:
            if name not in has:
                raise FileError(f"{path} has no column {name!r}; it has {', '.join(has) or 'none'}")
        for batch in batches():
            yield batch.select(names)
    except pa.ArrowException as error:
        raise FileError(f"{path}: {str(error).splitlines()[0]}") from None


def _opened(path: Path, ending: str, names: list[str]) -> tuple[list[str], Callable[[], Iterator[Any]]]:
    """The names of all columns, and what gives the batches."""
    import pyarrow as pa

    if ending == ".parquet":
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path)
        return file.schema_arrow.names, lambda: file.iter_batches(_BATCH_ROWS, columns=names)
    if ending == ".csv":
        import pyarrow.csv

        empty_is_none = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
        stream = pyarrow.csv.open_csv(path, convert_options=empty_is_none)
        return stream.schema.names, lambda: iter(stream)
    if ending in (".npy", ".npz"):
        return _numpy(path, ending, names)
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return reader.schema.names, lambda: (reader.get_batch(i) for i in range(reader.num_record_batches))


def _numpy(path: Path, ending: str, names: list[str]) -> tuple[list[str], Callable[[], Iterator[Any]]]:
    import pyarrow as pa

    loaded = _load(path)
    has = list(loaded.dtype.names or ()) if ending == ".npy" else list(loaded.files)

    def batches() -> Iterator[Any]:
        try:
            arrays = [loaded[name] for name in names]
        except ValueError as error:  # objects, which only a pickle could hold; each array of an .npz is read here
            raise FileError(f"{path}: {error}") from None
        if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1:
            raise FileError(f"{path}: columns have the shapes {', '.join(str(a.shape) for a in arrays)}; give one")
        for first in range(0, len(arrays[0]), _BATCH_ROWS):
            parts = [pa.array(np.ascontiguousarray(array[first : first + _BATCH_ROWS])) for array in arrays]
            yield pa.record_batch(parts, names=names)

    return has, batches


def _load(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None


def _json_lines(path: Path, names: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.json

    first = 0
    with path.open("rb") as file:
        while lines := file.readlines(_JSON_BYTES):
            try:
                table = pyarrow.json.read_json(io.BytesIO(b"".join(lines)))
            except pa.ArrowInvalid as error:
                row = re.search(r"in row (\d+)", str(error))
                where = f", row {first + int(row[1]) + 1}" if row else ""
                raise FileError(f"{path}{where}: {str(error).splitlines()[0]}") from None
            if not first and (absent := [name for name in names if name not in table.column_names]):
                raise FileError(f"{path} has no column {absent[0]!r}; it has {', '.join(table.column_names) or 'none'}")
            there = [
                table[name].combine_chunks() if name in table.column_names else pa.nulls(table.num_rows)
                for name in names
            ]
            yield pa.record_batch(there, names=names)
            first += table.num_rows


# --- batches to signals ---


def _piece(path: Path, batch: Any, first: int, columns: Columns, kind: Kind, key_of: Callable[[str], int]) -> Piece:
    import pyarrow.compute as pc

    rows, numbers = batch.num_rows, None
    for name in [columns.key, columns.value] + [columns.time] * (columns.time is not None):
        if batch[name].null_count:
            there = pc.is_valid(batch[name]).to_numpy(zero_copy_only=False)
            if not columns.skip_missing:
                row = first + 1 + int(np.argmin(there))
                raise FileError(f"{path}, row {row}, column {name!r}: nothing is there; --skip-missing leaves it out")
            numbers = there if numbers is None else numbers & there
    where = np.arange(first + 1, first + 1 + rows)
    if numbers is not None:
        batch, where = batch.filter(_mask(numbers)), where[numbers]

    def converted(name: str, convert: Callable[[Any], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return _converted(path, batch[name], name, where, convert)

    signals = make_signals(
        kind,
        converted(columns.key, lambda column: _keys(column, key_of)),
        converted(columns.value, lambda column: _numbers(column, kind.value)),
        converted(columns.aux, lambda column: _numbers(column, kind.aux)) if columns.aux else 0,
        converted(columns.time, lambda column: _times(column, columns.time_unit)) if columns.time else 0,
        n=batch.num_rows,
    )
    return Piece(signals, rows, rows - batch.num_rows)


def _mask(there: npt.NDArray[Any]) -> Any:
    import pyarrow as pa

    return pa.array(there)


def _converted(
    path: Path, column: Any, name: str, where: npt.NDArray[Any], convert: Callable[[Any], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """The column converted; when that fails, the first row that does is searched and named."""
    try:
        return convert(column)
    except (ValueError, TypeError, NotImplementedError) as error:
        low, high = 0, len(column) - 1
        while low < high:
            middle = (low + high) // 2
            try:
                convert(column.slice(low, middle - low + 1))
                low = middle + 1
            except (ValueError, TypeError, NotImplementedError):
                high = middle
        value = column[low].as_py() if len(column) else None
        text = str(error).splitlines()[0]
        raise FileError(f"{path}, row {where[low] if len(where) else 1}, column {name!r}: {value!r}: {text}") from None


def _keys(column: Any, key_of: Callable[[str], int]) -> npt.NDArray[Any]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind):
        return _numbers(column, "u8")
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TypeError(f"a key is an integer or a text, not {kind}")
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    used = np.unique(coded.indices.to_numpy(zero_copy_only=False))
    keys = np.zeros(len(coded.dictionary), "u8")
    for index in used:
        keys[index] = key_of(coded.dictionary[int(index)].as_py())
    found: npt.NDArray[Any] = keys[coded.indices.to_numpy(zero_copy_only=False)]
    return found


def _numbers(column: Any, wanted: str) -> npt.NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        column = pc.fill_null(column.cast(pa.type_for_alias(_ARROW[wanted])), 0)
    array: npt.NDArray[Any] = column.cast(pa.type_for_alias(_ARROW[wanted])).to_numpy(zero_copy_only=False)
    return array


def _times(column: Any, unit: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):  # ISO 8601, of mixed precision
        column = column.cast(pa.timestamp("ns"))
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _numbers(column.cast(pa.timestamp("ns", getattr(column.type, "tz", None))).cast(pa.int64()), "u8")
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        if not np.all((values >= 0) & (values * _UNITS_NS[unit] < 2.0**63)):
            raise ValueError(f"no time in {unit} since 1970")
        whole = np.floor(values)
        parts = np.round((values - whole) * _UNITS_NS[unit])
        found: npt.NDArray[Any] = whole.astype("u8") * np.uint64(_UNITS_NS[unit]) + parts.astype("u8")
        return found
    counts = _numbers(column, "u8")
    if len(counts) and int(counts.max()) * _UNITS_NS[unit] >= 2**64:
        raise ValueError(f"no time in {unit} since 1970 that fits 64 bits of ns")
    return counts * np.uint64(_UNITS_NS[unit])
