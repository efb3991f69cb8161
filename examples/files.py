"""Count, sum, smallest and largest value per key of a file of your own: Parquet, Arrow, CSV, JSON lines, NumPy.

    python examples/files.py trades.parquet --key symbol --value price [--aux size] [--time at] [--shards 1]

--key: a column of integers (0 or more) or texts. --value: numbers. --aux: integers that fit u4; weighs the value in
`weighted`. --time: timestamps, or integers in ns since 1970; without it, order alone counts. Rows are read batch by
batch, so the file may be larger than memory. Rows without a key or a value are left out and counted. Needs pyarrow
(extra: arrow).
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import bitactor as ba
from bitactor.client.files import Columns, read_signals

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


class Names:
    """Numbers of text keys, remembered for the table."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}

    def number(self, text: str) -> int:
        """The key of a text. ValueError when two texts share one."""
        key = ba.text_key(text)
        if self.texts.setdefault(key, text) != text:
            raise ValueError(f"{text!r} and {self.texts[key]!r} have the same key: number them yourself")
        return key


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
    columns = Columns(given.key, given.value, given.aux, given.time, skip_missing=True)
    names, left_out = Names(), 0
    try:
        with ba.Engine(app, given.shards) as engine:
            for piece in read_signals(given.file, columns, row, names.number):
                engine.send_batch(piece.signals)
                left_out += piece.left_out
            table = engine.table(totals)
            counts = engine.statistics()
    except (OSError, ValueError) as error:
        print(f"files: {error}", file=sys.stderr)
        return 1
    order = np.lexsort((table["key"], -table["count"].astype("i8")))[: given.rows]
    print(f"{given.key:<24}{'count':>12}{'sum':>16}{'weighted':>16}{'smallest':>14}{'largest':>14}")
    for i in order:
        name = names.texts.get(int(table["key"][i]), str(table["key"][i]))
        print(f"{name:<24}{table['count'][i]:>12,}", end="")
        print(f"{table['sum'][i]:>16.6g}{table['weighted'][i]:>16.6g}", end="")
        print(f"{table['smallest'][i]:>14.6g}{table['largest'][i]:>14.6g}")
    print(f"{len(table):,} keys, {counts.processed:,} rows; {left_out:,} rows without a key or a value were left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
