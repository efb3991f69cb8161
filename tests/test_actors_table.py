"""Rows of docs/types.md, each with its answer written out: neither mode can be wrong in the same way as the other."""

import importlib.util
import math
import subprocess
import sys
from itertools import count

import numpy as np
import pytest

import bitactor as ba
from tests.abi import call

INF, NAN = math.inf, math.nan
_numbers = count()

ROWS = [  # (result type, expression of value (f8), i = int field, u = u8 field; what it is)
    ("i8", "9223372036854775807 + state.one", -(2**63)),
    ("i8", "-7 // (state.one + 1)", -4),
    ("i8", "-7 % (state.one + 1)", 1),
    ("i8", "7 % -(state.one + 1)", -1),
    ("i8", "5 // state.zero", 0),
    ("i8", "5 % state.zero", 0),
    ("i8", "(-9223372036854775807 - state.one) // -1", -(2**63)),
    ("i8", "state.one << 65", 2),
    ("i8", "-8 >> (state.one + 64)", -4),
    ("i8", "int(state.f * 0.0 + 2.9)", 2),
    ("i8", "int(-2.9 + state.f * 0.0)", -2),
    ("i8", "int(1e300 * state.f)", 2**63 - 1),
    ("i8", "int(-1e300 * state.f)", -(2**63)),
    ("i8", "int(math.nan * state.f)", 0),
    ("i8", "round(state.f + 1.5)", 2),
    ("i8", "round(state.f + 2.5)", 4),
    ("i8", "1 if state.minus < state.big else 0", 1),
    ("i8", "1 if state.minus == state.big else 0", 0),
    ("i8", "state.minus + state.big", -2),
    ("i8", "state.flag + state.flag", 2),
    ("u8", "state.big + 2", 1),
    ("u8", "state.big // 2", 2**63 - 1),
    ("u8", "state.big >> 63", 1),
    ("u8", "-state.big", 1),
    ("i1", "state.one + 127", -128),
    ("u2", "state.zero - 1", 65535),
    ("f8", "1 / state.zero", INF),
    ("f8", "-1 / state.zero", -INF),
    ("f8", "state.zero / state.zero", NAN),
    ("f8", "-1.0 // (state.f * 0.0)", -INF),
    ("f8", "1.0 % (state.f * 0.0)", NAN),
    ("f8", "-7.0 // (state.f + 1.0)", -4.0),
    ("f8", "-7.0 % (state.f + 1.0)", 1.0),
    ("f8", "min(math.nan, state.f)", NAN),
    ("f8", "min(state.f, math.nan)", 1.0),
    ("f8", "max(0.0, -state.f * 0.0)", 0.0),
    ("f8", "max(-state.f * 0.0, 0.0)", -0.0),
    ("f8", "state.f * 0.1 + 0.2", 0.1 + 0.2),
    ("f8", "-(math.inf * (state.f * 0.0))", NAN),
    ("f4", "state.f * 0.1", float(np.float32(0.1))),
    ("f4", "state.f * 1e300", INF),
    ("f8", "float(9007199254740993 * state.one)", 9007199254740992.0),
    ("i8", "3 ** 4 * state.one", 81),
    ("f8", "math.floor(state.f * -0.5) * 1.0", -1.0),
]  # fmt: skip
STATE = """{"one": ba.field("i8", default=1), "zero": "i8", "minus": ba.field("i8", default=-1),
  "big": ba.field("u8", default=2**64 - 1), "f": ba.field("f8", default=1.0), "flag": ba.field("bool", default=True),
  "a": "f8", "out": %r}"""


def declare(tmp_path, text):
    path = tmp_path / f"table_{next(_numbers)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(actor, kind, values, jit):
    signals = ba.make_signals(kind, np.zeros(len(values), "u8"), np.array(values), time=0)
    states, *_ = call(actor, signals, np.zeros(len(values)), 1, jit=jit)
    return states[: actor.layout.dtype.itemsize].view(actor.layout.dtype)[0]


def one(tmp_path, storage, body):
    text = (
        "import math\nimport bitactor as ba\napp = ba.App('table')\nk = app.kind('k', 1)\n"
        f"@app.actor(k, state={STATE % storage})\ndef handler(state, signal):\n    {body}\n"
    )
    return declare(tmp_path, text)


@pytest.mark.parametrize("jit", [True, False], ids=["machine code", "python"])
@pytest.mark.parametrize(("storage", "text", "answer"), ROWS, ids=[row[1] for row in ROWS])
def test_a_row_of_the_type_table_gives_its_written_answer(tmp_path, monkeypatch, storage, text, answer, jit):
    monkeypatch.setenv("BITACTOR_CACHE_DIR", str(tmp_path / "cache"))
    module = one(tmp_path, storage, f"state.out = {text}")
    got = run(module.handler, module.k, [0.0], jit)["out"]
    assert got.tobytes() == np.array(answer, storage).tobytes(), f"{got!r} is not {answer!r}"


@pytest.mark.parametrize("jit", [True, False], ids=["machine code", "python"])
def test_a_product_and_a_sum_round_twice(tmp_path, monkeypatch, jit):
    monkeypatch.setenv("BITACTOR_CACHE_DIR", str(tmp_path / "cache"))
    module = one(tmp_path, "f8", "state.out = signal.value * signal.value + state.a - signal.value * signal.value")
    x = 1.0 + 2.0**-30
    assert run(module.handler, module.k, [x], jit)["out"] == 0.0  # fused: the rounding error of x * x


def test_a_name_assigned_anywhere_in_a_handler_is_never_the_global_of_that_name(tmp_path):
    text = """import bitactor as ba
app = ba.App("local")
k = app.kind("k", 1)
limit = 5.0
@app.actor(k, state={"out": "f8"})
def handler(state, signal):
    if signal.value > 1:
        limit = 2.0
    state.out = limit
"""
    with pytest.raises(ba.HandlerError, match="limit may not be assigned here") as caught:
        declare(tmp_path, text)
    assert caught.value.lineno == 9


def test_what_a_break_teaches_about_the_kind_does_not_leave_the_loop(tmp_path):
    text = """import bitactor as ba
app = ba.App("narrow")
price = app.kind("price", 1, value="f8")
size = app.kind("size", 2, value="u8")
@app.actor(price, size, state={"out": "u8"})
def handler(state, signal):
    for i in range(2):
        if signal.kind == price:
            break
    state.out = signal.value
"""
    with pytest.raises(ba.HandlerError, match="f8 or u8 here: ask first") as caught:
        declare(tmp_path, text)
    assert caught.value.lineno == 10


def test_a_name_given_before_a_loop_that_counts_in_it_is_known_after_it(tmp_path):
    module = one(tmp_path, "i8", "i = 7\n    for i in range(state.zero):\n        pass\n    state.out = i")
    assert [run(module.handler, module.k, [0.0], jit)["out"] for jit in (True, False)] == [7, 7]


def test_another_math_library_is_another_identity_and_the_same_one_is_not():
    code = "from bitactor.actors import libm; import sys; {}; print(libm.identity())"
    plain, again, other = (
        subprocess.run([sys.executable, "-c", code.format(what)], capture_output=True, text=True, check=True).stdout
        for what in ("pass", "pass", "f = libm.function; libm.function = lambda n: f('log1p' if n == 'log' else n)")
    )
    assert plain == again != other
