"""Tables: what NumPy, pyarrow, Polars, pandas and DuckDB read is what the states hold; buffers come and go."""

import gc
import sys

import numpy as np
import pytest

import bitactor as ba
from bitactor.schema import Kind
from tests.c_actors import CActor, make_app

POINT = Kind("point", 1, "i8", "i4")
SCALARS = {t: t for t in ("f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1")}


def fill(state, signal, emit, wall):
    for name in SCALARS:
        state[name] = signal["value"]
    state["even"] = signal["value"] % 2 == 0
    state["triple"] = [signal["value"], 1, 2]
    state["flags"] = [True, False, signal["value"] > 5, False, True]


@pytest.fixture(params=[0, 2], ids=["inline", "2 shards"])
def table(request):
    state = {**SCALARS, "even": "bool", "triple": ("f4", 3), "flags": ("bool", 5)}
    app = make_app((POINT,), (CActor("points", fill, (POINT,), state),))
    with ba.Engine(app, request.param) as engine:
        engine.send_batch(kind=POINT, key=np.arange(1000, 1100), value=np.arange(100))
        return engine.table("points")


def expected(table):
    rows = []
    for key in table["key"].tolist():
        v = key - 1000
        rows.append({"key": key, **dict.fromkeys(SCALARS, v), "even": v % 2 == 0, "triple": [v, 1, 2],
                     "flags": [True, False, v > 5, False, True]})  # fmt: skip
    return rows


def test_numpy_reads_all_types_of_fields(table):
    assert sorted(table["key"].tolist()) == list(range(1000, 1100))
    rows = [{n: np.asarray(r[n]).tolist() for n in table.columns} for r in table.to_numpy()]
    assert rows == expected(table)
    assert table.position == 100


def test_pyarrow_reads_all_types_of_fields(table):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    read = pa.table(table)
    read.validate(full=True)
    assert read.to_pylist() == expected(table)
    assert read.schema == pa.schema(table)
    assert read.schema.field("triple").type.list_size == 3


def test_polars_reads_all_types_of_fields(table):
    pl = pytest.importorskip("polars", reason="polars is not installed")
    read = pl.DataFrame(table)
    got = [{n: v.to_list() if isinstance(v, pl.Series) else v for n, v in r.items()} for r in read.to_dicts()]
    assert got == expected(table)


def test_pandas_reads_the_scalar_fields(table):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    if not hasattr(pd.DataFrame, "from_arrow"):
        pytest.skip("this pandas has no DataFrame.from_arrow")
    read = pd.DataFrame.from_arrow(table)
    assert read["key"].tolist() == table["key"].tolist()
    assert read["i2"].tolist() == table["i2"].tolist()
    assert read["even"].tolist() == table["even"].tolist()


def test_duckdb_reads_all_types_of_fields(table):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    states = table  # noqa: F841  (duckdb finds it by its name)
    relation = duckdb.sql("select key, f8, even, triple from states order by key desc limit 2")

    assert relation.fetchall() == [(1099, 99.0, False, (99.0, 1.0, 2.0)), (1098, 98.0, True, (98.0, 1.0, 2.0))]


def test_an_empty_table_is_read():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    app = make_app((POINT,), (CActor("points", fill, (POINT,), {"a": "f8", "b": "bool", "c": ("u1", 2)}),))
    with ba.Engine(app, 0) as engine:
        assert pa.table(engine.table("points")).num_rows == 0


def test_what_a_reader_keeps_outlives_the_table_and_the_engine(table):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    wanted = expected(table)
    column = pa.table(table)["triple"]
    del table
    gc.collect()
    assert column.to_pylist() == [row["triple"] for row in wanted]


def test_buffers_are_given_back_read_or_not(table):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    column = table.columns["f8"]
    before = sys.getrefcount(column)
    for _ in range(500):
        table.__arrow_c_stream__()
        table.__arrow_c_schema__()
        pa.RecordBatchReader.from_stream(table)  # opened, never read
        pa.table(table)
    gc.collect()
    assert sys.getrefcount(column) == before
