"""Random handlers do the same, bit for bit, as machine code and as Python: the two hold each other to the type table.

Programs are drawn from the language's grammar, written to a file and declared as a user would declare them. Seed:
BITACTOR_SEED, or random and printed. BITACTOR_PROGRAMS: how many (default 250).
"""

import importlib.util
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest

import bitactor as ba
from tests.abi import call

SEED = int(os.environ.get("BITACTOR_SEED", random.SystemRandom().randrange(1 << 32)))
PROGRAMS = int(os.environ.get("BITACTOR_PROGRAMS", "250"))
FIELDS = {
    "f": "f8", "g": "f4", "i": "i8", "j": "i4", "k": "i2", "l": "i1", "u": "u8", "v": "u4", "w": "u2", "x": "u1",
    "b": "bool", "a": ("f8", 5), "c": ("i4", 3),
}  # fmt: skip
INTEGERS = [
    "state.i",
    "state.j",
    "state.k",
    "state.l",
    "state.u",
    "state.v",
    "state.w",
    "state.x",
    "signal.key",
    "signal.time",
]
FLOATS = ["state.f", "state.g", "state.a[2]"]
EDGE_INTS = [0, 1, 2, 3, 63, 64, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
EDGE_FLOATS = [0.0, 1.0, 0.5, 1e308, 5e-324, 3.4e38, 1e-45, 2.5, 1e19, 9.3e18, 0.1]


class Grammar:
    def __init__(self, rng: random.Random, value: str, aux: str) -> None:
        self.rng, self.value, self.aux = rng, value, aux
        self.locals: dict[str, str] = {}
        self.lines: list[str] = []
        self.names = 0

    def number(self, depth: int) -> str:
        return self.integer(depth) if self.rng.random() < 0.5 else self.floating(depth)

    def integer(self, depth: int) -> str:
        r = self.rng
        if depth <= 0 or r.random() < 0.15:
            known = [n for n, t in self.locals.items() if t == "i"]
            signal = (["signal.value"] if self.value != "f8" else []) + (["signal.aux"] if self.aux != "f4" else [])
            literal = [str(r.choice(EDGE_INTS)), f"-{r.choice(EDGE_INTS[:-2])}"]
            return r.choice(INTEGERS + known + signal + literal)
        a, b = self.integer(depth - 1), self.integer(depth - 1)
        pick = r.randrange(17)
        if pick < 9:
            return f"({a} {['+', '-', '*', '//', '%', '&', '|', '^', '+'][pick]} {b})"
        return [
            f"({a} << ({b} & 127))", f"({a} >> {b})", f"(-{int(a) >> 1 if a.isdigit() else a})", f"(~{a})", f"abs({a})",
            f"min({a}, {b})", f"max({a}, {b})", f"({a} if {self.condition(depth - 1)} else {b})",
            f"int({self.floating(depth - 1)})",
        ][pick - 9] if pick != 16 or r.random() < 0.7 else f"({a} ** {r.randrange(5)})"  # fmt: skip

    def floating(self, depth: int) -> str:
        r = self.rng
        if depth <= 0 or r.random() < 0.15:
            known = [n for n, t in self.locals.items() if t == "f"]
            signal = (["signal.value"] if self.value == "f8" else []) + (["signal.aux"] if self.aux == "f4" else [])
            literal = [repr(r.choice(EDGE_FLOATS)), f"-{r.choice(EDGE_FLOATS)!r}", "math.inf", "math.nan"]
            return r.choice(FLOATS * 2 + known + signal + literal)
        a, b = self.floating(depth - 1), self.number(depth - 1)
        forms = [
            f"({a} + {b})", f"({a} - {b})", f"({a} * {b})", f"({b} / {a})", f"({a} // {b})", f"({b} % {a})", f"(-{a})",
            f"abs({a})", f"min({a}, {b})", f"max({b}, {a})", f"math.sqrt({a})", f"math.exp({a})", f"math.log({a})",
            f"math.sin({a})", f"math.pow({a}, {b})", f"({a} ** {b})", f"math.copysign({a}, {b})",
            f"math.atan2({a}, {b})", f"({self.integer(depth - 1)} / {self.integer(depth - 1)})", f"float({b})",
            f"float(math.floor({a}))", f"float(round({a}))", f"({a} if {self.condition(depth - 1)} else {b})",
            f"helper({a}, {self.integer(depth - 1)})", f"float(math.trunc({a}))",
            f"({a} * {b} + {a})", f"math.fmod({a}, {b})", f"math.hypot({a}, {b})",
        ]  # fmt: skip
        return r.choice(forms)

    def condition(self, depth: int) -> str:
        r = self.rng
        op = r.choice(["<", "<=", ">", ">=", "==", "!="])
        forms = [
            f"{self.number(depth - 1)} {op} {self.number(depth - 1)}",
            f"{self.integer(depth - 1)} {op} {self.integer(depth - 1)}",
            f"{self.integer(0)} < {self.number(depth - 1)} {op} {self.integer(0)}",
            f"math.isnan({self.floating(depth - 1)})",
            f"math.isfinite({self.floating(0)})",
            "state.b",
            f"not {self.number(depth - 1)}",
        ]
        one = r.choice(forms)
        return f"({one} {r.choice(['and', 'or'])} {r.choice(forms)})" if depth > 1 and r.random() < 0.3 else f"({one})"

    def block(self, indent: int, depth: int) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            self.statement(indent, depth)

    def statement(self, indent: int, depth: int) -> None:
        r, pad = self.rng, "    " * indent
        pick = r.random()
        if pick < 0.35:
            name = r.choice(list(FIELDS)[:11])
            if name in "fg":
                text = self.number(3)
            else:
                text = self.condition(2) if name == "b" else self.integer(3)
            op = "=" if name == "b" or r.random() < 0.6 else r.choice(["+=", "-=", "*="])
            self.lines.append(f"{pad}state.{name} {op} {text}")
        elif pick < 0.45:
            self.lines.append(f"{pad}state.a[{r.choice(['0', '4', self.integer(1) + ' % 7'])}] = {self.number(2)}")
        elif pick < 0.5:
            self.lines.append(f"{pad}state.c[{r.choice(['1', 'signal.key % 4'])}] += {self.integer(2)}")
        elif pick < 0.65 and indent == 1:
            self.names += 1
            kind = r.choice("if")
            text = self.integer(3) if kind == "i" else self.floating(3)
            self.lines.append(f"{pad}n{self.names} = {text}")
            self.locals[f"n{self.names}"] = kind
        elif pick < 0.75 and depth > 0:
            self.lines.append(f"{pad}if {self.condition(2)}:")
            self.block(indent + 1, depth - 1)
            if r.random() < 0.5:
                self.lines.append(f"{pad}else:")
                self.block(indent + 1, depth - 1)
        elif pick < 0.85 and depth > 0:
            self.names += 1
            step = r.choice([1, 2, -1, -3])
            low, high = (0, r.randrange(1, 7)) if step > 0 else (r.randrange(1, 7), -1)
            self.lines.append(f"{pad}for r{self.names} in range({low}, {high}, {step}):")
            self.lines.append(f"{pad}    if r{self.names} == {r.randrange(8)}:")
            self.lines.append(f"{pad}        {r.choice(['break', 'continue', 'pass'])}")
            self.block(indent + 1, depth - 1)
        elif pick < 0.93:
            self.lines.append(f"{pad}emit(out_i, {self.integer(2)}, {self.integer(2)}, aux={self.floating(1)})")
        elif pick < 0.97:
            self.lines.append(
                f"{pad}emit(out_f, signal.key, {self.number(2)}, {self.integer(1)}, time={self.integer(1)})"
            )
        else:
            self.lines.append(f"{pad}if {self.condition(1)}:")
            self.lines.append(f'{pad}    raise ValueError("planned")')


def program(rng: random.Random, value: str, aux: str) -> str:
    grammar = Grammar(rng, value, aux)
    grammar.block(1, 2)
    grammar.block(1, 2)
    fields = ", ".join(f"{n!r}: {t!r}" for n, t in FIELDS.items())
    return (
        f"""import math
import bitactor as ba
app = ba.App("random")
main = app.kind("main", 1, value={value!r}, aux={aux!r})
out_i = app.kind("out_i", 2, value="i8", aux="f4")
out_f = app.kind("out_f", 3, value="f8", aux="i4")

def helper(a, n):
    total = 0.0
    for i in range(3):
        if n == i:
            return total - a
        total = total + a * i
    return total

@app.actor(main, state={{{fields}}})
def handler(state, signal, emit):
"""
        + "\n".join(grammar.lines)
        + "\n"
    )


def declare(text: str, path: Path) -> ba.App:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


def batch(rng: random.Random, value: str, aux: str, n: int) -> np.ndarray:
    signals = np.zeros(n, ba.signal_dtype(value, aux))
    signals["kind"] = 1
    signals["key"] = [rng.choice([rng.getrandbits(64), rng.randrange(8), rng.choice(EDGE_INTS)]) for _ in range(n)]
    signals["time"] = [rng.choice([rng.getrandbits(63), rng.choice(EDGE_INTS)]) for _ in range(n)]
    if value == "f8":
        signals["value"] = [
            rng.choice([rng.uniform(-10, 10), rng.choice(EDGE_FLOATS), -0.0, float("inf"), float("-inf"), float("nan"),
                        struct.unpack("d", rng.randbytes(8))[0]]) for _ in range(n)
        ]  # fmt: skip
    else:
        signals["value"] = np.frombuffer(rng.randbytes(8 * n), value) >> np.array(
            [rng.randrange(64) for _ in range(n)], value
        )
    signals["aux"] = np.frombuffer(rng.randbytes(4 * n), aux)
    return signals


def test_random_handlers_do_the_same_bits_as_machine_code_and_as_python(tmp_path, monkeypatch):
    monkeypatch.setenv("BITACTOR_CACHE_DIR", "/nonexistent/read-only")
    print(f"BITACTOR_SEED={SEED}")
    emitted = raised_ever = 0
    for number in range(PROGRAMS):
        rng = random.Random(SEED * 1_000_003 + number)
        value, aux = rng.choice(["f8", "i8", "u8"]), rng.choice(["f4", "i4", "u4"])
        text = program(rng, value, aux)
        app = declare(text, tmp_path / f"program_{number}.py")
        signals = batch(rng, value, aux, 24)
        slots = np.array([rng.randrange(4) for _ in range(24)])
        native = call(app.actors[0], signals, slots, 4, jit=True)
        python = call(app.actors[0], signals, slots, 4, jit=False)
        where = f"BITACTOR_SEED={SEED}, program {number}:\n{text}"
        assert native[2] == python[2], where
        for name in FIELDS:
            dtype = app.actors[0].layout.dtype
            a, b = native[0].view(dtype_padded(app))[name], python[0].view(dtype_padded(app))[name]
            assert a.tobytes() == b.tobytes(), f"state.{name} ({dtype[name]}): {a} and {b}\n{where}"
        assert native[1].tobytes() == python[1].tobytes(), where
        emitted += len(native[1])
        raised_ever += len(native[2])
    assert emitted > PROGRAMS and raised_ever > PROGRAMS // 10, "the programs are dull"


def dtype_padded(app):
    layout = app.actors[0].layout
    fields = [(f.name, layout.dtype[f.name]) for f in layout.fields]
    return np.dtype({"names": [n for n, _ in fields], "formats": [t for _, t in fields],
                     "offsets": [f.offset for f in layout.fields], "itemsize": layout.stride})  # fmt: skip


@pytest.mark.parametrize("jit", [True, False])
def test_a_full_emit_buffer_is_resumed_and_nothing_is_lost_or_doubled(tmp_path, jit):
    text = """import bitactor as ba
app = ba.App("emits")
main = app.kind("main", 1, value="i8")
@app.actor(main, state={"n": "u8"})
def handler(state, signal, emit):
    state.n += 1
    for i in range(signal.value):
        emit(main, signal.key, i)
"""
    app = declare(text, tmp_path / "emits.py")
    signals = ba.make_signals(app.kinds[0], np.arange(50), np.arange(50) % 7, time=0)
    states, emits, raised, calls = call(app.actors[0], signals, np.zeros(50), 1, jit=jit, emit_cap=8)
    assert states.view("u8")[0] == 50 and not raised and calls > 10
    got = [
        (int(e["cause"]), int(np.frombuffer(e["signal"].tobytes(), ba.signal_dtype("i8"))["value"][0])) for e in emits
    ]
    assert got == [(i, v) for i in range(50) for v in range(i % 7)]


@pytest.mark.parametrize("jit", [True, False])
def test_a_signal_that_raises_leaves_no_trace_and_names_its_line(tmp_path, jit):
    text = """import bitactor as ba
app = ba.App("raises")
main = app.kind("main", 1, value="i8")
@app.actor(main, state={"n": "u8", "sum": "i8"})
def handler(state, signal, emit):
    state.n += 1
    emit(main, signal.key, signal.value)
    state.sum += signal.value
    if signal.value % 3 == 0:
        raise ValueError("a multiple of three")
"""
    app = declare(text, tmp_path / "raises.py")
    signals = ba.make_signals(app.kinds[0], np.arange(10), np.arange(10), time=0)
    states, emits, raised, _ = call(app.actors[0], signals, np.zeros(10), 1, jit=jit)
    assert [at for at, _ in raised] == [0, 3, 6, 9]
    assert states.view("u8")[0] == 6 and states.view("i8")[1] == 1 + 2 + 4 + 5 + 7 + 8
    assert emits["cause"].tolist() == [1, 2, 4, 5, 7, 8]
    filename, line, message = app.actors[0].raise_site(raised[0][1])
    assert filename.endswith("raises.py") and line == 10 and message == "ValueError: a multiple of three"
