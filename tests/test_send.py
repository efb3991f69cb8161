"""`bitactor send`: rows of every kind of file arrive as signals, once each; what is wrong is named by its place."""

import datetime as dt
import json

import numpy as np
import pytest

import bitactor as ba
from bitactor.cli.run import main
from bitactor.client.files import Columns, FileError, read_signals
from bitactor.schema import Kind

from .reference_server import ReferenceServer

pa = pytest.importorskip("pyarrow", reason="pyarrow (extra: arrow) is not installed")
TRADE = Kind("trade", 1, "f8", "u4")
MAPPING = ["--kind", "trade", "--key", "symbol", "--value", "price", "--aux", "size", "--time", "at"]
BEGIN_NS = 1_700_000_000_000_000_000


@pytest.fixture
def server():
    with ReferenceServer() as server:
        yield server


def table(n=1000):
    return {
        "symbol": [f"S{i % 7}" for i in range(n)],
        "price": [i / 4 for i in range(n)],
        "size": [i % 50 for i in range(n)],
        "at": [BEGIN_NS + 1000 * i for i in range(n)],
    }


def write(path, columns):
    """The columns as a file of the kind that the path's ending says."""
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401 (used as pa.parquet)

    arrow, ending = pa.table(columns), path.suffix
    if ending == ".parquet":
        pa.parquet.write_table(arrow, path, row_group_size=300)
    elif ending == ".csv":
        pa.csv.write_csv(arrow, path)
    elif ending == ".jsonl":
        rows = zip(*columns.values(), strict=True)
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    elif ending == ".npz":
        np.savez(path, **{name: np.array(column) for name, column in columns.items()})
    elif ending == ".npy":
        types = [(name, np.array(column).dtype) for name, column in columns.items()]
        np.save(path, np.array(list(zip(*columns.values(), strict=True)), types))
    else:
        with pa.ipc.new_file(path, arrow.schema) as writer:
            writer.write_table(arrow, max_chunksize=300)
    return path


def expected(columns):
    keys = [ba.text_key(text) for text in columns["symbol"]]
    return ba.make_signals(TRADE, np.array(keys, "u8"), columns["price"], columns["size"], columns["at"])


def send(server, *arguments, producer="send"):
    named = ["--producer", producer] if producer is not None else []
    return main(["send", *map(str, arguments), *named, "--to", server.address, "--plain-text"])


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather", "csv", "jsonl", "npy", "npz"])
def test_every_kind_of_file_arrives_as_signals_with_the_names_of_its_keys(server, tmp_path, capsys, ending):
    path = write(tmp_path / f"trades.{ending}", table())
    assert send(server, path, *MAPPING) == 0
    assert server.streams["send"].signals.tobytes() == expected(table()).tobytes()
    assert set(server.names.values()) == {f"S{i}" for i in range(7)}
    assert "1,000 signals sent and acknowledged (on disk)" in capsys.readouterr().out


def test_a_run_again_sends_nothing_twice_and_goes_on_with_a_longer_file(server, tmp_path, capsys):
    path = write(tmp_path / "a.parquet", table(1000))
    assert send(server, path, *MAPPING) == 0
    assert send(server, path, *MAPPING) == 0
    assert "0 signals sent and acknowledged" in capsys.readouterr().out
    path = write(tmp_path / "a.parquet", table(70_000))
    assert send(server, path, *MAPPING) == 0
    assert "69,000 signals sent" in capsys.readouterr().out
    assert server.streams["send"].signals.tobytes() == expected(table(70_000)).tobytes()
    assert send(server, write(tmp_path / "b.csv", table(5)), *MAPPING) == 1
    assert "has sent 70,000 signals, these files have 5" in capsys.readouterr().err
    assert send(server, tmp_path / "b.csv", *MAPPING, "--append") == 0
    assert server.streams["send"].next == 70_005


def test_another_file_or_other_columns_are_another_producer_unless_one_is_named(server, tmp_path, capsys):
    first, second = write(tmp_path / "a.parquet", table(1000)), write(tmp_path / "b.parquet", table(1000))
    for arguments in ([first, *MAPPING], [second, *MAPPING], [first, *MAPPING[:6]]):
        assert send(server, *arguments, producer=None) == 0
        assert "1,000 signals sent and acknowledged" in capsys.readouterr().out
    assert send(server, first, second, *MAPPING, producer=None) == 0  # a file more at the end: goes on
    assert "1,000 signals sent and acknowledged" in capsys.readouterr().out
    assert [stream.next for name, stream in sorted(server.streams.items()) if name.startswith("send:a")] in (
        [1000, 2000],
        [2000, 1000],
    )


def test_what_a_file_of_signals_holds_wrongly_is_told_with_its_name(server, tmp_path, capsys):
    signals = expected(table())
    signals["kind"][7] = 999
    np.save(tmp_path / "signals.npy", signals)
    assert send(server, tmp_path / "signals.npy") == 1
    assert "signals.npy: signal 7 is of kind 999" in capsys.readouterr().err


def test_options_that_cannot_be_are_refused_before_anything_is_connected(tmp_path, capsys):
    path = write(tmp_path / "a.csv", table())
    for arguments, said in (
        (["--token-file", "none"], "--token-file: none: no such file"),
        (["--producer", ""], "empty"),
    ):
        assert main(["send", str(path), *MAPPING, "--to", "127.0.0.1:1", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_an_empty_cell_of_a_csv_file_is_nothing_and_texts_are_times(server, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("symbol,price,size,at\n,1.5,1,5\nA,2.5,1,6\n")
    assert send(server, tmp_path / "a.csv", *MAPPING) == 1
    assert "row 1, column 'symbol': nothing is there" in capsys.readouterr().err
    lines = ('{"symbol": "A", "price": 1, "size": 1, "at": "2023-11-14T22:13:20"}\n'
             '{"symbol": "A", "price": 1, "size": 1, "at": "2023-11-14T22:13:20.001999"}\n')  # fmt: skip
    (tmp_path / "b.jsonl").write_text(lines)
    assert send(server, tmp_path / "b.jsonl", *MAPPING, producer="times") == 0
    assert server.streams["times"].signals["time"].tolist() == [BEGIN_NS, BEGIN_NS + 1_999_000]


def test_an_interrupted_run_is_finished_by_the_next(server, tmp_path):
    path = write(tmp_path / "a.parquet", table(50_000))
    with ba.Client(server.address, producer="send", plain_text=True) as client:
        client.send_batch(expected(table(12_345)))
    assert send(server, path, *MAPPING) == 0
    assert server.streams["send"].signals.tobytes() == expected(table(50_000)).tobytes()


def test_a_file_of_whole_signals_needs_no_columns(server, tmp_path, capsys):
    np.save(tmp_path / "signals.npy", expected(table()))
    assert send(server, tmp_path / "signals.npy") == 0
    assert server.streams["send"].signals.tobytes() == expected(table()).tobytes()
    np.save(tmp_path / "other.npy", np.zeros(3))
    assert send(server, tmp_path / "other.npy", "--append") == 1
    assert "other.npy: dtype float64 is not a signal dtype" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda columns: columns["price"].__setitem__(700, None), "row 701, column 'price': nothing is there"),
        (lambda columns: columns["size"].__setitem__(700, -1), r"row 701, column 'size': -1: .*-1"),
        (lambda columns: columns["size"].__setitem__(3, 2**32), "row 4, column 'size': 4294967296"),
        (lambda columns: columns["at"].__setitem__(999, -5), "row 1000, column 'at': -5"),
        (lambda columns: columns.update(symbol=[1.5] * 1000), "row 1, column 'symbol': 1.5: a key is an integer or"),
        (lambda columns: columns.update(price=["1.5"] * 500 + ["x"] * 500), "row 501, column 'price': 'x'"),
        (lambda columns: columns.pop("size"), "has no column 'size'; it has symbol, price, at"),
    ],
)
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_what_is_wrong_is_named_by_file_row_and_column(tmp_path, ending, change, message):
    columns = table()
    change(columns)
    path = write(tmp_path / f"a.{ending}", columns)
    with pytest.raises(FileError, match=rf"a\.{ending},? .*{message}"):
        list(read_signals(path, Columns("symbol", "price", "size", "at"), TRADE, ba.text_key))


def test_damaged_files_are_named(tmp_path):
    for name, text in [
        ("a.parquet", "nonsense"),
        ("a.jsonl", '{"symbol": "x"}\n{"symb\n'),
        ("a.npy", "x"),
        ("a.xls", ""),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(FileError, match=name):
            list(read_signals(tmp_path / name, Columns("symbol", "price"), TRADE, ba.text_key))


def test_missing_rows_are_left_out_when_that_is_asked_for(server, tmp_path, capsys):
    columns = table(100)
    columns["price"][10] = columns["symbol"][20] = columns["at"][30] = columns["size"][40] = None
    assert send(server, write(tmp_path / "a.parquet", columns), *MAPPING, "--skip-missing") == 0
    assert "97 signals sent" in (shown := capsys.readouterr().out) and "3 of 100 rows left out" in shown
    assert server.streams["send"].signals["aux"][37] == 0


def test_times_have_units_and_timestamps_are_what_they_say(tmp_path):
    def times(column, unit="ns"):
        path = write(tmp_path / "t.parquet", {"k": [1, 2], "v": [0.0, 0.0], "t": column})
        (piece,) = read_signals(path, Columns("k", "v", time="t", time_unit=unit), TRADE, ba.text_key)
        return piece.signals["time"].tolist()

    assert times([1, 2], "ms") == [10**6, 2 * 10**6]
    assert times([1.5, 1_700_000_000.25], "s") == [1_500_000_000, 1_700_000_000_250_000_000]
    assert times([dt.datetime(1970, 1, 2, tzinfo=dt.UTC), dt.datetime(1970, 1, 1, 1, tzinfo=dt.UTC)]) == [
        86400 * 10**9,
        3600 * 10**9,
    ]
    with pytest.raises(FileError, match="row 2, column 't'"):
        times([1, 2**62], "s")
    with pytest.raises(ValueError, match="the time's unit is 'm'"):
        Columns("k", "v", time_unit="m")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv", *MAPPING], "missing.csv: no such file"),
        ([__file__, "--kind", "trade"], "columns need --kind, --key and --value"),
        ([__file__, *MAPPING, "--time-unit", "h"], "the time's unit is 'h'"),
        ([__file__, *MAPPING[2:], "--kind", "trades"], "the service's app has no kind 'trades'; it has trade, count"),
    ],
)
def test_wrong_arguments_are_said_in_one_line(server, capsys, arguments, message):
    assert send(server, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_service_that_is_not_there_is_said_in_one_line(tmp_path, capsys):
    path = write(tmp_path / "a.csv", table(3))
    assert main(["send", str(path), *MAPPING, "--to", "127.0.0.1:1", "--plain-text"]) == 1
    assert "127.0.0.1:1: " in capsys.readouterr().err
