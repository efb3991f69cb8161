"""SQL over live state: right answers, no way out of its process, and a service that goes on beside it."""

import io
import os
import statistics
import threading
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import bitactor as ba
from bitactor.admin import query, query_process
from tests.admin_service import Stub, ask, served, trades


@pytest.fixture(scope="module")
def service():
    stub = Stub()
    stub.names = {ba.text_key(name): name for name in ("AAPL", "MSFT")}
    signals = trades(4000)
    signals["key"][::10] = ba.text_key("AAPL")
    stub.apply(signals)
    yield stub
    stub.engine.close()


@pytest.fixture(scope="module")
def port(service):
    with served(service) as admin:
        yield admin.port


def sql(port, text, path="/api/v1/query", **members):
    return ask(port, path, "POST", {"sql": text} | members)


def test_a_select_over_live_state_is_what_numpy_computes(service, port):
    table = service.engine.table("vwap")
    reply = sql(port, "select key, notional/volume as vwap from vwap order by volume desc, key limit 10")
    body = reply.json()
    order = np.lexsort((table["key"], -table["volume"].astype("i8")))[:10]
    assert body["rows"] == [[int(table["key"][i]), table["notional"][i] / table["volume"][i]] for i in order]
    assert body["tables"] == {"vwap": 4000} and body["position"] == 4000 and not body["truncated"]
    assert [c["name"] for c in body["columns"]] == ["key", "vwap"]


def test_names_of_text_keys_stand_beside_their_keys(service, port):
    body = sql(port, "select name, volume from VWAP where name = 'AAPL'").json()
    assert body["rows"] == [["AAPL", service.engine.state("vwap", ba.text_key("AAPL")).volume]]
    described = sql(port, "describe vwap").json()["rows"]
    assert [row[:2] for row in described] == [
        ["key", "UBIGINT"], ["name", "VARCHAR"], ["notional", "DOUBLE"], ["volume", "UBIGINT"], ["last", "DOUBLE"],
        ["recent", "DOUBLE[2]"],
    ]  # fmt: skip
    joined = "with top as (select * from vwap where volume > 10) select count(*) from top join alerts using (key)"
    assert sql(port, joined).json()["rows"] == [[service.engine.statistics().actors[1].keys]]


def test_rows_are_cut_at_the_limit_and_it_says_so(port):
    body = sql(port, "select key from vwap order by key", limit=3).json()
    assert [row[0] for row in body["rows"]] == [0, 1, 2] and body["truncated"]
    assert sql(port, "select i from range(3) t(i)", limit=3).json()["truncated"] is False
    endless = sql(port, "select * from range(100000000000)", limit=2).json()
    assert endless["rows"] == [[0], [1]] and endless["truncated"]


def test_an_arrow_stream_and_texts_keep_every_digit(port):
    key = ba.text_key("AAPL")
    reply = ask(
        port, "/api/v1/query", "POST", {"sql": f"select key, recent from vwap where key = {key}"},
        accept="application/vnd.apache.arrow.stream",
    )  # fmt: skip
    read = pa.ipc.open_stream(io.BytesIO(reply.body)).read_all()
    assert read["key"].to_pylist() == [key] and len(read["recent"].to_pylist()[0]) == 2
    assert read.schema.metadata[b"position"] == b"4000" and read.schema.metadata[b"truncated"] == b"false"
    texts = sql(
        port, "select key, 1::integer, 'nan'::double from vwap where name = 'AAPL'", "/api/v1/query?integers=text"
    )
    assert texts.json()["rows"] == [[str(key), 1, "NaN"]]


FORBIDDEN = [
    ("select * from '/etc/passwd'", "unknown_table"),
    ("select * from read_csv('/etc/passwd')", "not_allowed"),
    ("select * from read_text('/etc/passwd')", "not_allowed"),
    ("select * from read_blob('/proc/self/environ')", "not_allowed"),
    ("select * from glob('*')", "not_allowed"),
    ("select * from vwap where key in (select 1 from read_csv('/etc/passwd'))", "not_allowed"),
    ("select (select max(x) from parquet_scan('a')) from vwap", "not_allowed"),
    ("from 'http://127.0.0.1:1/x.parquet'", "unknown_table"),
    ("select * from read_json('s3://bucket/x')", "not_allowed"),
    ("copy vwap to '{out}'", "bad_sql"),
    ("copy (select 1) to '{out}'", "bad_sql"),
    ("export database '{out}'", "bad_sql"),
    ("attach '{out}' as other", "bad_sql"),
    ("select * from other.main.t", "unknown_table"),
    ("install httpfs", "bad_sql"),
    ("load httpfs", "bad_sql"),
    ("pragma database_list", "bad_sql"),
    ("select * from pragma_database_list()", "not_allowed"),
    ("set memory_limit = '64GB'", "bad_sql"),
    ("set lock_configuration = false", "bad_sql"),
    ("reset threads", "bad_sql"),
    ("call enable_logging()", "bad_sql"),
    ("select * from enable_logging('QueryLog', storage='file', storage_path='{out}')", "not_allowed"),
    ("create table t as select 1", "bad_sql"),
    ("insert into vwap values (1)", "bad_sql"),
    ("delete from vwap", "bad_sql"),
    ("drop view vwap", "bad_sql"),
    ("select 1; select 2", "bad_sql"),
    ("select 1; copy vwap to '{out}'", "bad_sql"),
    ("explain analyze select 1", "bad_sql"),
    ("prepare p as select 1", "bad_sql"),
    ("select * from pandas_scan(1234)", "not_allowed"),
    ("select * from arrow_scan(1, 2, 3)", "not_allowed"),
    ("select * from query('copy vwap to ''{out}''')", "not_allowed"),
    ("select * from query_table('vwap')", "not_allowed"),
    ("select * from duckdb_settings()", "not_allowed"),
    ("select * from information_schema.tables", "unknown_table"),
    ("select * from tables", "unknown_table"),  # a Python variable of the process
    ("select * from connection", "unknown_table"),
    ("show tables", "not_allowed"),
    ("select getenv('HOME')", "bad_sql"),
    ("select getvariable('x') from nope", "unknown_table"),
    ("", "bad_sql"),
    ("-- nothing", "bad_sql"),
    ("selec 1", "bad_sql"),
    ("select ?", "bad_sql"),
    ("select nope from vwap", "bad_sql"),
]


def checked_and_run(connection, text):
    query_process.check(connection, text, ["vwap", "alerts"])
    connection.execute(text)


def test_files_network_settings_and_statements_are_refused_each_with_a_reason(tmp_path):
    out = tmp_path / "out"
    connection = query_process.connect(256 << 20)
    for text, code in FORBIDDEN:
        with pytest.raises((query_process.Rejected, duckdb.Error)) as caught:
            checked_and_run(connection, text.format(out=out) if "{out}" in text else text)
        answer = getattr(caught.value, "answer", {"code": "bad_sql", "message": str(caught.value)})
        assert answer["code"] == code and len(answer["message"]) > 8, (text, answer)
    assert not list(tmp_path.iterdir())


def test_refusals_come_over_http_with_their_code_and_words(port, tmp_path):
    out = tmp_path / "out"
    several = [*FORBIDDEN[::9], ("select 1 \x00; copy vwap to '{out}'", "bad_body"), ("select '\ud800'", "bad_body")]
    for text, code in several:
        reply = sql(port, text.format(out=out) if "{out}" in text else text)
        assert (reply.status, reply.json()["code"]) == (400, code), (text, reply.body)
        assert len(reply.json()["message"]) > 8
    assert not list(tmp_path.iterdir())


def test_the_lock_below_holds_even_for_what_the_check_would_let_through(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    here = [1, 2, 3]  # noqa: F841
    connection = query_process.connect(256 << 20)
    connection.execute("set lock_configuration = true")
    for text in (
        f"select * from read_csv('{secret}')",
        f"select * from '{secret}'",
        f"copy (select 1) to '{tmp_path}/x'",
        f"attach '{tmp_path}/x.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set memory_limit = '64GB'",
        "select * from here",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(text).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


@pytest.mark.parametrize(
    "text",
    [
        "select length(repeat('x', 2000000000))",
        "select len(range(1000000000))",
        "select list(i) from range(1000000000) t(i)",
        "with recursive r(s) as (select 'xxxxxxxx' union all select s || s from r) select max(length(s)) from r",
    ],
)
def test_a_query_that_wants_all_memory_ends_alone(service, port, text):
    reply = sql(port, text)
    assert (reply.status, reply.json()["code"]) == (400, "too_much_memory"), reply.body
    assert ask(port, "/api/v1/actors/vwap/state/1").status == 200


def test_a_query_without_end_is_stopped_and_the_loop_answers_meanwhile(service, monkeypatch):
    monkeypatch.setattr(query.Queries.run, "__kwdefaults__", query.Queries.run.__kwdefaults__ | {"seconds": 2.0})
    with served(service) as admin:
        replies = []
        text = "select count(*) from range(100000) a, range(100000) b, range(100000) c"
        threads = [threading.Thread(target=lambda: replies.append(sql(admin.port, text))) for _ in range(2)]
        for thread in threads:
            thread.start()
        waits = []
        while any(thread.is_alive() for thread in threads):
            begun = time.perf_counter()
            assert ask(admin.port, "/livez").status == 200
            waits.append(time.perf_counter() - begun)
            time.sleep(0.005)
        for thread in threads:
            thread.join()
    print(f"{len(waits)} probes, p99 {statistics.quantiles(waits, n=100)[98] * 1e3:.1f} ms")
    assert [reply.json()["code"] for reply in replies] == ["too_slow"] * 2
    assert len(waits) > 50 and statistics.quantiles(waits, n=100)[98] < 0.1


def test_a_large_answer_leaves_the_loop_free(service):
    stub = Stub()
    stub.apply(trades(400_000, keys=200_000))
    with served(stub) as admin:
        done = threading.Event()

        def large():
            reply = sql(admin.port, "select * from vwap", limit=100_000)
            table = ask(admin.port, "/api/v1/actors/vwap/table?sort=-volume&limit=10000")
            sizes.extend([len(reply.json()["rows"]), len(table.json()["rows"])])
            done.set()

        sizes = []
        thread = threading.Thread(target=large)
        thread.start()
        waits = []
        while not done.is_set():
            begun = time.perf_counter()
            ask(admin.port, "/readyz")
            waits.append(time.perf_counter() - begun)
            time.sleep(0.005)
        thread.join()
    stub.engine.close()
    print(f"{len(waits)} probes, p99 {statistics.quantiles(waits, n=100)[98] * 1e3:.1f} ms")
    assert sizes == [100_000, 10_000]
    assert statistics.quantiles(waits, n=100)[98] < 0.25


def test_more_queries_than_may_wait_are_refused_with_503(service, monkeypatch):
    monkeypatch.setattr(query, "WAITING_MAX", 0)
    monkeypatch.setattr(query.Queries.run, "__kwdefaults__", query.Queries.run.__kwdefaults__ | {"seconds": 1.0})
    with served(service) as admin:
        replies = []
        text = "select count(*) from range(100000) a, range(100000) b, range(100000) c"
        threads = [threading.Thread(target=lambda: replies.append(sql(admin.port, text))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    codes = sorted(reply.json()["code"] for reply in replies)
    assert codes == ["busy", "busy", "too_slow", "too_slow"]
    assert all(reply.headers["retry-after"] for reply in replies if reply.status == 503)


def test_no_process_and_no_file_is_left_behind(service, port):
    def children():
        mine = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rpartition(")")[2].split()
                if int(fields[1]) == os.getpid() and b"query_process" in (status.parent / "cmdline").read_bytes():
                    mine.append(status.parent.name)
            except OSError:
                continue
        return mine

    def files():
        return [p for p in Path("/proc/self/fd").iterdir() if "bitactor query" in os.path.realpath(p)]

    for text in ("select 1", "selec", "select len(range(1000000000))", "select * from vwap"):
        sql(port, text)
    assert children() == [] and files() == []
