"""The profile: what it reads and makes up, that its figures are those of the parts and count what there is."""

import json
from pathlib import Path

import numpy as np
import pytest

import bitactor as ba
from bitactor.cli import inputs, profiling
from bitactor.cli import run as frame
from tests.service_app import app

APP = str(Path(__file__).parent / "service_app.py")
SEED = 5


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def same(signals, expected):
    assert [tuple(row) for row in signals.tolist()] == [tuple(row) for row in expected.tolist()]


def test_made_up_signals_are_of_the_kinds_from_outside_and_the_same_for_a_seed():
    made = inputs.generate(app, 10_000, 100, SEED)
    assert set(np.unique(made["kind"])) == {1, 2}  # `fed` comes from an actor, `alert` is handled by none
    assert made["key"].max() == 99 and len(np.unique(made["key"])) == 100
    assert made.tobytes() == inputs.generate(app, 10_000, 100, SEED).tobytes()
    assert made.tobytes() != inputs.generate(app, 10_000, 100, SEED + 1).tobytes()
    trades = made[made["kind"] == 1]
    assert 95 < trades["value"].mean() < 105


def test_columns_of_csv_and_parquet_become_signals_in_their_order_with_text_keys_and_kinds_by_name():
    import duckdb

    rows = "(1, 'trade', 'AAPL', 2.5, 3), (2, 'note', 'MSFT', 7, 0), (3, 'trade', 'AAPL', 3.5, 4)"
    table = f"(select * from (values {rows}) t(time, kind, key, value, aux))"
    for name in ("a.csv", "a.parquet"):
        duckdb.sql(f"copy {table} to '{name}'")
    expected = np.zeros(3, ba.SIGNAL_DTYPE)
    expected["kind"], expected["time"], expected["aux"] = [1, 2, 1], [1, 2, 3], [3, 0, 4]
    expected["key"] = [ba.text_key(text) for text in ("AAPL", "MSFT", "AAPL")]
    expected["value"][[0, 2]] = [2.5, 3.5]
    expected.view(ba.signal_dtype("u8", "u4"))["value"][1] = 7
    same(inputs.read(Path("a.parquet"), app), expected)
    same(inputs.read(Path("a.csv"), app), expected)
    np.save("a.npy", expected)
    same(inputs.read(Path("a.npy"), app), expected)


@pytest.mark.parametrize(
    ("name", "text", "kind", "told"),
    [
        ("none.csv", None, None, "none.csv: no such file"),
        ("a.txt", "x", None, "a.txt: give .npy, .parquet, .csv or .tsv"),
        ("a.csv", "key,price\n1,2\n", None, "a.csv: no column 'value'; it has key, price, and needs key, value"),
        ("a.csv", "key,value\n1,2\n", None, "and the app takes trade, note: say which with --kind"),
        ("a.csv", "key,value\n1,2\n", "trad", "the app declares no kind trad; it has trade, note, alert, fed"),
        ("a.csv", "kind,key,value\ntrade,1,2\nquote,1,2\n", None, "the app declares no kind quote"),
        ("a.csv", "key,value\n1,2.5\n", "note", "kind 'note': column 'value' has dtype float64"),
        ("a.csv", "key,value\n1,2.5\n1,\n", "trade", "column 'value' has rows without a value"),
        ("a.csv", "key,value\n-1,2.5\n", "trade", "kind 'trade': column 'key'"),
        ("a.npy", "x", None, "a.npy: "),
        ("a.parquet", "x", None, "a.parquet: "),
    ],
)
def test_an_input_that_does_not_fit_is_told_with_its_file_and_what_is_wrong(name, text, kind, told):
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(frame.Failed) as caught:
        inputs.read(Path(name), app, kind)
    assert told in str(caught.value)


def test_an_array_that_is_not_of_signals_is_refused():
    np.save("a.npy", np.zeros(4))
    with pytest.raises(frame.Failed, match="holds float64 of shape"):
        inputs.read(Path("a.npy"), app)


def test_hottest_keys_are_counted_exactly():
    signals = np.zeros(100, ba.SIGNAL_DTYPE)
    signals["key"] = [7] * 50 + [9] * 30 + list(range(100, 120))
    found = profiling.hottest(signals)
    assert [(one.key, one.signals, one.share) for one in found[:3]] == [(7, 50, 0.5), (9, 30, 0.3), (100, 1, 0.01)]
    assert len(found) == profiling.HOTTEST


@pytest.mark.parametrize("shards", [0, 2])
def test_a_run_counts_every_signal_and_its_stages_fit_into_the_time_of_its_threads(shards):
    made = inputs.generate(app, 200_000, 1000, SEED)
    run = profiling.run_engine(app, made, shards)
    signals = {one.name: one.signals for one in run.actors}
    assert signals["vwap"] == int((made["kind"] == 1).sum())
    assert signals["notes"] == signals["totals"] == int((made["kind"] == 2).sum())
    keys = {one.name: one.keys for one in run.actors}
    assert keys == {"vwap": 1000, "notes": 1000, "totals": 13}
    stages = {one.name: one.seconds for one in run.stages}
    assert all(seconds >= 0 for seconds in stages.values())
    assert stages["resolve"] > 0 and stages["actor vwap"] > 0
    busy = sum(seconds for name, seconds in stages.items() if name != "idle")
    assert 0 < busy < run.seconds * max(1, shards) * 1.5
    for one in run.actors:
        assert sum(count for _, count in one.histogram) == one.timed
        assert one.ns_p50 <= one.ns_p99 <= one.ns_p999


def test_a_run_with_a_log_tells_decoding_appending_and_syncing_and_its_disk():
    made = inputs.generate(app, 100_000, 1000, SEED)
    run = profiling.run_logged(app, made, 1)
    stages = {one.name: one.seconds for one in run.stages}
    assert all(stages[name] > 0 for name in ("decode", "seal", "log", "sync", "resolve"))
    assert stages["decode"] + stages["seal"] + stages["log"] + stages["sync"] < run.seconds
    assert "2 records" in run.notes[0]
    assert sum(one.signals for one in run.actors) == 100_000 + int((made["kind"] == 2).sum())


def test_the_whole_profile_runs_the_service_too_and_is_told_as_json_and_as_tables(capsys):
    given = [APP, "--signals", "20000", "--keys", "50", "--shards", "1", "--log", "sqlite", "--network"]
    assert frame.main(["profile", *given, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in report["runs"]] == [
        "inline",
        "1 shard",
        "SQLite log, 1 shard",
        "network, log sqlite, 1 shard",
    ]
    assert all(one["signals"] == 20000 and one["seconds"] > 0 for one in report["runs"])
    stages = [stage["name"] for stage in report["runs"][-1]["stages"]]
    assert stages[:6] == ["client", "network", "log", "sync", "ring", "resolve"]
    assert {"actor vwap", "emit", "idle"} < set(stages)
    by_name = {stage["name"]: stage["seconds"] for stage in report["runs"][-1]["stages"]}
    assert by_name["sync"] > 0 and by_name["resolve"] > 0 and by_name["actor vwap"] > 0
    assert len(report["hottest_keys"]) == 10 and report["how"]
    assert frame.main(["profile", *given[:-1]]) == 0
    out = capsys.readouterr().out
    for word in ("resolve", "actor vwap", "sync", "p99.9", "hottest keys", "tick counters"):
        assert word in out
