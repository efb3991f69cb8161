"""Count, sum, smallest and largest value per key of a file of your own: Parquet, Arrow (IPC) or CSV.

    python examples/files.py trades.parquet --key symbol --value price [--aux size] [--time at] [--shards 1]

--key: a column of integers (0 or more) or texts. --value: numbers. --aux: integers that fit u4; weighs the value in
`weighted`. --time: timestamps, or integers in ns since 1970; without it, order alone counts. Rows are read batch by
batch, so the file may be larger than memory. Rows without a key or a value are left out and counted. Needs pyarrow
(extra: arrow).
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

import bitactor as ba

app = ba.App("files")
row = app.kind("row", 1, value="f8", aux="u4")


@app.actor(
    row,
    state={
        "count": "u8",
        "sum": "f8",
        "weighted": "f8",
        "smallest": ba.field("f8", default=float("inf")),
        "largest": ba.field("f8", default=float("-inf")),
    },
)
def totals(state, signal):
    state.count += 1
    state.sum += signal.value
    state.weighted += signal.value * signal.aux
    state.smallest = min(state.smallest, signal.value)
    state.largest = max(state.largest, signal.value)


def batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The named columns of a file, batch by batch. ValueError for an unknown ending, KeyError for a missing column."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        file = pa.parquet.ParquetFile(path)
        names, source = file.schema_arrow.names, lambda: file.iter_batches(1 << 16, columns=columns)
    elif ending in (".arrow", ".feather", ".ipc"):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        names, source = reader.schema.names, lambda: (reader.get_batch(i) for i in range(reader.num_record_batches))
    elif ending == ".csv":
        stream = pa.csv.open_csv(path)
        names, source = stream.schema.names, lambda: stream
    else:
        raise ValueError(f"{path} ends in {ending or 'nothing'}: give .parquet, .arrow, .feather, .ipc or .csv")
    for name in columns:
        if name not in names:
            raise KeyError(f"{path} has no column {name!r}; it has {', '.join(names)}")
    for batch in source():
        yield batch.select(columns)


class Keys:
    """Keys of integers are themselves; of texts, their 64-bit hash, remembered for the table."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def of(self, column: pa.Array) -> np.ndarray:
        """One u8 for each row. ValueError when two texts share a key."""
        if pa.types.is_integer(column.type):
            return ba.make_signals(row, column.to_numpy(zero_copy_only=False), 0.0, time=0)["key"]
        coded = column.cast(pa.string()).dictionary_encode()
        keys = []
        for text in coded.dictionary.to_pylist():
            key = ba.text_key(text)
            if self.names.setdefault(key, text) != text:
                raise ValueError(f"{text!r} and {self.names[key]!r} have the same key: number them yourself")
            keys.append(key)
        return np.array(keys, "u8")[coded.indices.to_numpy(zero_copy_only=False)]


def main(arguments: list[str] | None = None) -> int:
    """Run the actor over the file and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--key", required=True)
    parser.add_argument("--value", required=True)
    parser.add_argument("--aux")
    parser.add_argument("--time")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--rows", type=int, default=20, help="keys to print, those with most rows first")
    given = parser.parse_args(arguments)
    columns = list(dict.fromkeys(c for c in (given.key, given.value, given.aux, given.time) if c))
    keys, left_out = Keys(), 0
    try:
        with ba.Engine(app, given.shards) as engine:
            for batch in batches(given.file, columns):
                there = pc.and_(pc.is_valid(batch[given.key]), pc.is_valid(batch[given.value]))
                kept = batch.filter(there)
                left_out += batch.num_rows - kept.num_rows
                if not kept.num_rows:
                    continue
                engine.send_batch(
                    kind=row,
                    key=keys.of(kept[given.key]),
                    value=kept[given.value].cast(pa.float64()).to_numpy(),
                    aux=pc.fill_null(kept[given.aux], 0).to_numpy(zero_copy_only=False) if given.aux else 0,
                    time=times(kept[given.time]) if given.time else 0,
                )
            table = engine.table(totals)
            counts = engine.statistics()
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        print(f"files: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    order = np.lexsort((table["key"], -table["count"].astype("i8")))[: given.rows]
    print(f"{given.key:<24}{'count':>12}{'sum':>16}{'weighted':>16}{'smallest':>14}{'largest':>14}")
    for i in order:
        name = keys.names.get(int(table["key"][i]), str(table["key"][i]))
        print(f"{name:<24}{table['count'][i]:>12,}", end="")
        print(f"{table['sum'][i]:>16.6g}{table['weighted'][i]:>16.6g}", end="")
        print(f"{table['smallest'][i]:>14.6g}{table['largest'][i]:>14.6g}")
    print(f"{len(table):,} keys, {counts.processed:,} rows; {left_out:,} rows without a key or a value were left out")
    return 0


def times(column: pa.Array) -> np.ndarray:
    """Nanoseconds since 1970 of a column of timestamps or integers; 0 where there is none."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ns")).cast(pa.int64())
    return pc.fill_null(column.cast(pa.int64()), 0).to_numpy()


if __name__ == "__main__":
    sys.exit(main())
