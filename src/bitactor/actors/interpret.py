"""From the typed tree to Python closures of the same ABI: BITACTOR_JIT=off. The same bits, some thousand times slower.

For debuggers, for platforms without LLVM, and to hold the compiler to the type table: a property test compares the
two bit for bit. Integers are Python ints kept in range, floats Python floats; the math library is the same one.
"""

import ctypes
import math
import struct
from collections.abc import Callable
from typing import Any

from bitactor.actors import language as L
from bitactor.actors import libm
from bitactor.actors.abi import TOO_MANY_EMITS
from bitactor.actors.types import I8_MAX, I8_MIN, SIZE, U8_MAX, Compute, Storage

Env = dict[str, Any]
Get = Callable[[Env], Any]
Run = Callable[[Env], Any]

_FORMATS: dict[Storage, str] = {
    "f8": "=d", "f4": "=f", "i8": "=q", "i4": "=i", "i2": "=h", "i1": "=b", "u8": "=Q", "u4": "=I", "u2": "=H",
    "u1": "=B", "bool": "=?",
}  # fmt: skip
_NAN = {"f8": struct.pack("=Q", 0x7FF8000000000000), "f4": struct.pack("=I", 0x7FC00000)}
HANDLER_TYPE = ctypes.CFUNCTYPE(
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_uint32,
)


class Context(ctypes.Structure):
    """ba_ctx of core/include/bitactor/actor.h."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("status", ctypes.c_uint32),
        ("error", ctypes.c_uint32),
        ("emit_n", ctypes.c_uint32),
        ("emit_cap", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("emits", ctypes.c_void_p),
        ("wall_ns", ctypes.c_uint64),
        ("watermark_ns", ctypes.c_uint64),
        ("timer", ctypes.c_void_p),
    )


class _RaisedError(Exception):
    def __init__(self, site: int) -> None:
        self.site = site


class _EmitFullError(Exception):
    pass


# What a statement says about what comes next.
_NEXT, _BREAK, _CONTINUE, _RETURN = range(4)


def wrap(kind: Compute, value: int) -> int:
    """An integer modulo 2**64, as i8 or u8."""
    value &= U8_MAX
    return value - (1 << 64) if kind == "i8" and value > I8_MAX else value


def divide(left: float, right: float) -> float:
    """IEEE division."""
    if right != 0.0:
        return left / right
    if left == 0.0 or left != left:
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _float_division(op: str, left: float, right: float) -> float:
    """As llvm.py's float_division, operation by operation."""
    rest = libm.function("fmod")(left, right)
    some = rest != 0.0
    modulo = math.copysign(0.0, right)
    if some:
        modulo = rest + right if (right < 0.0) != (rest < 0.0) else rest
    if op == "mod":
        return modulo
    plain = divide(left, right)
    if right == 0.0:
        return plain
    quotient = divide(left - modulo, right)
    if quotient == 0.0:
        return math.copysign(0.0, plain)
    floor = libm.function("floor")(quotient)
    return floor + 1.0 if quotient - floor > 0.5 else floor


def _copysign(left: float, right: float) -> float:
    return math.copysign(left, 1.0 if right != right else right)  # a NaN has no sign here


def _integer_division(op: str, kind: Compute, left: int, right: int) -> int:
    if right == 0:
        return 0
    return wrap(kind, left // right) if op == "floordiv" else wrap(kind, left % right)


def to_i8(value: float) -> int:
    """Towards zero, saturating; NaN is 0."""
    if value != value:
        return 0
    if value >= 9223372036854775808.0:
        return I8_MAX
    if value <= -9223372036854775808.0:
        return I8_MIN
    return int(value)


def pack(storage: Storage, value: Any) -> bytes:
    """The value's bytes in memory: narrowed, NaN in its one pattern."""
    if storage in ("f8", "f4"):
        if value != value:
            return _NAN[storage]
        return struct.pack("=d", value) if storage == "f8" else bytes(ctypes.c_float(value))
    if storage == "bool":
        return b"\1" if value else b"\0"
    return (int(value) & U8_MAX).to_bytes(8, "little")[: SIZE[storage]] if _LITTLE else _big(storage, int(value))


_LITTLE = struct.pack("=H", 1) == struct.pack("<H", 1)


def _big(storage: Storage, value: int) -> bytes:
    return (value & ((1 << 8 * SIZE[storage]) - 1)).to_bytes(SIZE[storage], "big")


def _load(address: int, storage: Storage) -> Any:
    value = struct.unpack(_FORMATS[storage], ctypes.string_at(address, SIZE[storage]))[0]
    return value != 0 if storage == "bool" else value


class _Compiler:
    """Closures of one function; `env` holds locals, and under names no local can have the state, signal and emits."""

    def __init__(self, helpers: dict[str, Callable[..., Any]]) -> None:
        self.helpers = helpers

    # --- statements ---

    def block(self, body: tuple[L.Stmt, ...]) -> Run:
        runs = [getattr(self, "do_" + type(s).__name__)(s) for s in body]

        def run(env: Env) -> int:
            for each in runs:
                if (then := each(env)) != _NEXT:
                    return int(then)
            return _NEXT

        return run

    def do_Assign(self, s: L.Assign) -> Run:
        name, value = s.name, self.get(s.value)

        def run(env: Env) -> int:
            env[name] = value(env)
            return _NEXT

        return run

    def do_Evaluate(self, s: L.Evaluate) -> Run:
        value = self.get(s.value)

        def run(env: Env) -> int:
            value(env)
            return _NEXT

        return run

    def do_Store(self, s: L.Store) -> Run:
        value, where, storage = self.get(s.value), self.where(s.target), s.target.storage

        def run(env: Env) -> int:
            data = pack(storage, value(env))
            ctypes.memmove(where(env), data, len(data))
            return _NEXT

        return run

    def do_If(self, s: L.If) -> Run:
        test, body, orelse = self.get(s.test), self.block(s.body), self.block(s.orelse)
        return lambda env: body(env) if test(env) else orelse(env)

    def do_While(self, s: L.While) -> Run:
        test, body = self.get(s.test), self.block(s.body)

        def run(env: Env) -> int:
            while test(env):
                then = body(env)
                if then == _BREAK:
                    break
                if then == _RETURN:
                    return _RETURN
            return _NEXT

        return run

    def do_ForRange(self, s: L.ForRange) -> Run:
        start, stop, body = self.get(s.start), self.get(s.stop), self.block(s.body)

        def run(env: Env) -> int:
            for at in range(start(env), stop(env), s.step):
                env[s.name] = at
                then = body(env)
                if then == _BREAK:
                    break
                if then == _RETURN:
                    return _RETURN
            return _NEXT

        return run

    def do_Break(self, s: L.Break) -> Run:
        return lambda env: _BREAK

    def do_Continue(self, s: L.Continue) -> Run:
        return lambda env: _CONTINUE

    def do_Return(self, s: L.Return) -> Run:
        value = self.get(s.value) if s.value is not None else None

        def run(env: Env) -> int:
            if value is not None:
                env["return value"] = value(env)
            return _RETURN

        return run

    def do_Raise(self, s: L.Raise) -> Run:
        def run(_: Env) -> int:
            raise _RaisedError(s.site)

        return run

    def do_Emit(self, s: L.Emit) -> Run:
        key, time, value, aux = (self.get(e) for e in (s.key, s.time, s.value, s.aux))

        def run(env: Env) -> int:
            emit = (key(env), time(env), value(env), aux(env))
            out = env["emits"]
            if len(out) >= env["emit room"]:
                raise _EmitFullError
            out.append(
                struct.pack("=HH", s.kind, 0) + pack(s.aux_storage, emit[3]) + pack("u8", emit[0]) + pack("u8", emit[1])
                + pack(s.value_storage, emit[2]) + struct.pack("=II", env["cause"], 0)
            )  # fmt: skip
            return _NEXT

        return run

    # --- memory ---

    def where(self, place: L.Field | L.Element) -> Callable[[Env], int]:
        if isinstance(place, L.Field):
            offset = place.offset
            return lambda env: int(env["state"]) + offset
        index = self.get(place.index)

        def find(env: Env) -> int:
            at = int(index(env))
            if not 0 <= at < place.count:
                raise _RaisedError(place.site)
            return int(env["state"]) + place.offset + at * SIZE[place.storage]

        return find

    def get_Field(self, e: L.Field) -> Get:
        where = self.where(e)
        return lambda env: _load(where(env), e.storage)

    get_Element = get_Field

    def get_SignalField(self, e: L.SignalField) -> Get:
        return lambda env: _load(env["signal"] + e.offset, e.storage)

    # --- expressions ---

    def get(self, e: L.Expr) -> Get:
        made: Get = getattr(self, "get_" + type(e).__name__)(e)
        return made

    def get_Const(self, e: L.Const) -> Get:
        value = e.value
        return lambda env: value

    def get_Local(self, e: L.Local) -> Get:
        name = e.name
        return lambda env: env[name]

    def get_Bind(self, e: L.Bind) -> Get:
        value = self.get(e.value)

        def get(env: Env) -> Any:
            env[e.name] = result = value(env)
            return result

        return get

    def get_Convert(self, e: L.Convert) -> Get:
        value, source, kind = self.get(e.value), e.value.type, e.type
        if kind == "bool":
            return lambda env: value(env) != 0
        if kind == "f8":
            return lambda env: float(value(env))
        if source == "f8":
            return lambda env: to_i8(value(env))
        return lambda env: wrap(kind, int(value(env)))

    def get_Unary(self, e: L.Unary) -> Get:
        value, kind, op = self.get(e.value), e.type, e.op
        if op == "not":
            return lambda env: not value(env)
        if op == "invert":
            return lambda env: wrap(kind, ~value(env))
        if op == "neg":
            return (lambda env: -value(env)) if kind == "f8" else (lambda env: wrap(kind, -value(env)))
        if op == "abs":
            return (lambda env: math.fabs(value(env))) if kind == "f8" else (lambda env: wrap(kind, abs(value(env))))
        if op in ("isnan", "isinf", "isfinite"):
            test = {"isnan": math.isnan, "isinf": math.isinf, "isfinite": math.isfinite}[op]
            return lambda env: test(value(env))
        call = libm.function("rint" if op == "round" else op)
        return lambda env: call(value(env))

    def get_Binary(self, e: L.Binary) -> Get:
        left, right, kind, op = self.get(e.left), self.get(e.right), e.type, e.op
        if op in ("floordiv", "mod"):
            if kind == "f8":
                return lambda env: _float_division(op, left(env), right(env))
            return lambda env: _integer_division(op, kind, left(env), right(env))
        if op == "div":
            return lambda env: divide(left(env), right(env))
        if op == "copysign":
            return lambda env: _copysign(left(env), right(env))
        if op == "shl":
            return lambda env: wrap(kind, left(env) << (right(env) & 63))
        if op == "shr":
            return lambda env: left(env) >> (right(env) & 63)
        plain: dict[str, Callable[[Any, Any], Any]] = {
            "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "pow": lambda a, b: a**b,
            "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
        }  # fmt: skip
        do = plain[op]
        if kind == "f8":
            return lambda env: do(left(env), right(env))
        return lambda env: wrap(kind, do(left(env), right(env)))

    def get_Compare(self, e: L.Compare) -> Get:
        left, right = self.get(e.left), self.get(e.right)
        tests: dict[str, Get] = {
            "eq": lambda env: left(env) == right(env), "ne": lambda env: left(env) != right(env),
            "lt": lambda env: left(env) < right(env), "le": lambda env: left(env) <= right(env),
            "gt": lambda env: left(env) > right(env), "ge": lambda env: left(env) >= right(env),
        }  # fmt: skip
        return tests[e.op]

    def get_Logic(self, e: L.Logic) -> Get:
        left, right = self.get(e.left), self.get(e.right)
        return (lambda env: left(env) and right(env)) if e.op == "and" else (lambda env: left(env) or right(env))

    def get_Choice(self, e: L.Choice) -> Get:
        test, yes, no = self.get(e.test), self.get(e.yes), self.get(e.no)
        return lambda env: yes(env) if test(env) else no(env)

    def get_Libm(self, e: L.Libm) -> Get:
        call, args = libm.function(e.name), [self.get(arg) for arg in e.args]
        return lambda env: call(*(arg(env) for arg in args))

    def get_HelperCall(self, e: L.HelperCall) -> Get:
        args = [self.get(arg) for arg in e.args]
        return lambda env: self.helpers[e.name](*(arg(env) for arg in args))


def _helper(function: L.Function, compiler: _Compiler) -> Callable[..., Any]:
    run = compiler.block(function.body)

    def call(*args: Any) -> Any:
        env: Env = dict(zip(function.params, args, strict=True))
        run(env)
        return env["return value"]

    return call


def interpret(program: L.Program) -> Any:
    """The handler as a ctypes function pointer of the ABI; whoever calls it needs no GIL, the pointer takes it."""
    compiler = _Compiler({})
    for function in program.functions:
        compiler.helpers[function.name] = _helper(function, compiler)
    body = compiler.block(program.body)

    def one(ctx: Context, state: int, signal: int, cause: int) -> int:
        """0, or 1: no room for its emits, or 2: raised; then nothing is changed."""
        env: Env = {
            "state": state,
            "signal": signal,
            "cause": cause,
            "emits": [],
            "emit room": ctx.emit_cap - ctx.emit_n,
        }
        before = ctypes.string_at(state, program.stride)
        try:
            if program.emits_max and program.emits_max > env["emit room"]:
                raise _EmitFullError
            body(env)
        except _RaisedError as raised:
            ctx.error = raised.site
            ctypes.memmove(state, before, program.stride)
            return 2
        except _EmitFullError:
            ctypes.memmove(state, before, program.stride)
            if ctx.emit_n:
                return 1
            ctx.error = TOO_MANY_EMITS
            return 2
        for emit in env["emits"]:
            ctypes.memmove(ctx.emits + 40 * ctx.emit_n, emit, 40)
            ctx.emit_n += 1
        return 0

    def handler(context: int, states: int, slots: int, signals: int, order: int, n: int) -> int:
        ctx = Context.from_address(context)
        slot = (ctypes.c_uint32 * n).from_address(slots)
        cause = (ctypes.c_uint16 * n).from_address(order)
        for i in range(n):
            status = one(ctx, states + slot[i] * program.stride, signals + 32 * cause[i], cause[i])
            if status:
                ctx.status = status
                return i
        ctx.status = 0
        return n

    return HANDLER_TYPE(handler)
