"""From the typed tree to machine code of the actor ABI (core/include/bitactor/actor.h), through LLVM.

One function: a loop over the batch with the handler's body inline. No fast-math flag is ever set and contraction is
off, so every operation rounds as IEEE 754 says. Functions of the math library are external symbols under names of our
own, so that LLVM can neither fold nor replace them; Python mode calls the same addresses.
"""

from typing import Any

from llvmlite import ir

from bitactor.actors import language as L
from bitactor.actors.abi import DONE, EMIT_FULL, HANDLER, RAISED, TOO_MANY_EMITS
from bitactor.actors.types import LIBM, SIZE, Compute, Storage

I1, I8, I16, I32, I64, I128 = (ir.IntType(n) for n in (1, 8, 16, 32, 64, 128))
F32, F64, PTR = ir.FloatType(), ir.DoubleType(), ir.PointerType()
COMPUTE: dict[Compute, ir.Type] = {"i8": I64, "u8": I64, "f8": F64, "bool": I1}
CTX_STATUS, CTX_ERROR, CTX_EMIT_N, CTX_EMIT_CAP, CTX_EMITS = 4, 8, 12, 16, 24
EMIT_BYTES, SIGNAL_BYTES = 40, 32

NAN64, NAN32 = 0x7FF8000000000000, 0x7FC00000


def _storage_type(storage: Storage) -> ir.Type:
    if storage in ("f8", "f4"):
        return F64 if storage == "f8" else F32
    return ir.IntType(8 * SIZE[storage])


class _Body:
    """Statements and expressions of one function, at the end of one builder."""

    def __init__(self, module: ir.Module, function: ir.Function, functions: dict[str, ir.Function]) -> None:
        self.module = module
        self.function = function
        self.functions = functions
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.locals: dict[str, Any] = {}
        self.loops: list[tuple[ir.Block, ir.Block]] = []  # (where continue goes, where break goes)

    def declare(self, names: tuple[tuple[str, Compute], ...]) -> None:
        for name, kind in names:
            self.locals[name] = self.builder.alloca(COMPUTE[kind])

    # --- statements ---

    def block(self, body: tuple[L.Stmt, ...]) -> None:
        for statement in body:
            if self.builder.block.is_terminated:
                return
            getattr(self, "do_" + type(statement).__name__)(statement)

    def do_Assign(self, s: L.Assign) -> None:
        self.builder.store(self.value(s.value), self.locals[s.name])

    def do_Evaluate(self, s: L.Evaluate) -> None:
        self.value(s.value)

    def do_If(self, s: L.If) -> None:
        b = self.builder
        test = self.value(s.test)
        yes, no, end = (self.function.append_basic_block(n) for n in ("then", "else", "endif"))
        b.cbranch(test, yes, no)
        for block, body in ((yes, s.body), (no, s.orelse)):
            b.position_at_end(block)
            self.block(body)
            if not b.block.is_terminated:
                b.branch(end)
        b.position_at_end(end)

    def do_While(self, s: L.While) -> None:
        b = self.builder
        head, body, end = (self.function.append_basic_block(n) for n in ("while", "do", "endwhile"))
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(self.value(s.test), body, end)
        self.inside(head, end, body, s.body, head)
        b.position_at_end(end)

    def do_ForRange(self, s: L.ForRange) -> None:
        """Counts the turns first, as Python does, so that the last step cannot overflow."""
        b = self.builder
        start, stop = self.value(s.start), self.value(s.stop)
        signed = s.type == "i8"
        low, high = (start, stop) if s.step > 0 else (stop, start)
        some = b.icmp_signed("<", low, high) if signed else b.icmp_unsigned("<", low, high)
        span = b.sub(b.sub(high, low), I64(1))
        turns = b.select(some, b.add(b.udiv(span, I64(abs(s.step))), I64(1)), I64(0))
        with b.goto_entry_block():  # one place on the stack, however often the loop is entered
            turn, at = b.alloca(I64), b.alloca(I64)
        b.store(I64(0), turn)
        b.store(start, at)
        head, body, step, end = (self.function.append_basic_block(n) for n in ("for", "do", "step", "endfor"))
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(b.icmp_unsigned("<", b.load(turn, typ=I64), turns), body, end)
        b.position_at_end(body)
        b.store(b.load(at, typ=I64), self.locals[s.name])
        self.inside(step, end, b.block, s.body, step)
        b.position_at_end(step)
        b.store(b.add(b.load(turn, typ=I64), I64(1)), turn)
        b.store(b.add(b.load(at, typ=I64), I64(s.step)), at)
        b.branch(head)
        b.position_at_end(end)

    def inside(self, again: ir.Block, end: ir.Block, block: ir.Block, body: tuple[L.Stmt, ...], then: ir.Block) -> None:
        self.loops.append((again, end))
        self.builder.position_at_end(block)
        self.block(body)
        if not self.builder.block.is_terminated:
            self.builder.branch(then)
        self.loops.pop()

    def do_Break(self, s: L.Break) -> None:
        self.builder.branch(self.loops[-1][1])

    def do_Continue(self, s: L.Continue) -> None:
        self.builder.branch(self.loops[-1][0])

    def do_Return(self, s: L.Return) -> None:
        assert s.value is not None
        self.builder.ret(self.value(s.value))

    # --- expressions ---

    def value(self, e: L.Expr) -> Any:
        return getattr(self, "get_" + type(e).__name__)(e)

    def get_Const(self, e: L.Const) -> Any:
        if e.type == "f8":
            return F64(float(e.value))
        return COMPUTE[e.type](int(e.value) & ((1 << 64) - 1) if e.type != "bool" else int(e.value))

    def get_Local(self, e: L.Local) -> Any:
        return self.builder.load(self.locals[e.name], typ=COMPUTE[e.type])

    def get_Bind(self, e: L.Bind) -> Any:
        value = self.value(e.value)
        self.builder.store(value, self.locals[e.name])
        return value

    def get_Convert(self, e: L.Convert) -> Any:
        b, value, source = self.builder, self.value(e.value), e.value.type
        if e.type == "bool":
            return b.fcmp_unordered("!=", value, F64(0.0)) if source == "f8" else b.icmp_unsigned("!=", value, I64(0))
        if source == "bool":
            value = b.zext(value, I64)
            return b.uitofp(value, F64) if e.type == "f8" else value
        if e.type == "f8":
            return b.sitofp(value, F64) if source == "i8" else b.uitofp(value, F64)
        if source == "f8":
            return b.call(self.intrinsic("llvm.fptosi.sat.i64.f64", I64, [F64]), [value])
        return value

    def intrinsic(self, name: str, result: ir.Type, args: list[ir.Type]) -> ir.Function:
        found = self.module.globals.get(name)
        return found if found is not None else ir.Function(self.module, ir.FunctionType(result, args), name)

    def get_Unary(self, e: L.Unary) -> Any:
        b, value, kind = self.builder, self.value(e.value), e.value.type
        if e.op == "not":
            return b.not_(value)
        if e.op == "invert":
            return b.not_(value)
        if e.op == "neg":
            return b.fneg(value) if kind == "f8" else b.neg(value)
        if kind != "f8":  # abs of i8
            return b.select(b.icmp_signed("<", value, I64(0)), b.neg(value), value)
        if e.op == "isnan":
            return b.fcmp_unordered("uno", value, value)
        fabs = self.intrinsic("llvm.fabs.f64", F64, [F64])
        if e.op == "isinf":
            return b.fcmp_ordered("==", b.call(fabs, [value]), F64(float("inf")))
        if e.op == "isfinite":
            return b.fcmp_ordered("<", b.call(fabs, [value]), F64(float("inf")))
        names = {"abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint"}
        return b.call(self.intrinsic(f"llvm.{names[e.op]}.f64", F64, [F64]), [value])

    def get_Binary(self, e: L.Binary) -> Any:
        b, left, right = self.builder, self.value(e.left), self.value(e.right)
        if e.type == "f8":
            if e.op in ("floordiv", "mod"):
                return self.float_division(e.op, left, right)
            if e.op == "copysign":  # a NaN has no sign here: processors differ in the sign of those they make
                right = b.select(b.fcmp_unordered("uno", right, right), F64(1.0), right)
                return b.call(self.intrinsic("llvm.copysign.f64", F64, [F64, F64]), [left, right])
            return {"add": b.fadd, "sub": b.fsub, "mul": b.fmul, "div": b.fdiv}[e.op](left, right)
        if e.op in ("floordiv", "mod"):
            return self.integer_division(e.op, left, right, e.type == "i8")
        if e.op in ("shl", "shr"):
            count = b.and_(right, I64(63))
            return (
                b.shl(left, count) if e.op == "shl" else b.ashr(left, count) if e.type == "i8" else b.lshr(left, count)
            )
        if e.op == "pow":
            assert isinstance(e.right, L.Const)
            return self.integer_power(left, int(e.right.value))
        return {"add": b.add, "sub": b.sub, "mul": b.mul, "and": b.and_, "or": b.or_, "xor": b.xor}[e.op](left, right)

    def integer_power(self, base: Any, exponent: int) -> Any:
        result: Any = I64(1)
        while exponent:
            if exponent & 1:
                result = self.builder.mul(result, base)
            base = self.builder.mul(base, base)
            exponent >>= 1
        return result

    def integer_division(self, op: str, left: Any, right: Any, signed: bool) -> Any:
        """Floors; x // 0 and x % 0 are 0; the smallest integer // -1 wraps to itself."""
        b = self.builder
        zero = b.icmp_unsigned("==", right, I64(0))
        if not signed:
            safe = b.select(zero, I64(1), right)
            result = b.udiv(left, safe) if op == "floordiv" else b.urem(left, safe)
            return b.select(zero, I64(0), result)
        minus = b.icmp_unsigned("==", right, I64(-1))
        safe = b.select(b.or_(zero, minus), I64(1), right)
        quotient, rest = b.sdiv(left, safe), b.srem(left, safe)
        off = b.and_(b.icmp_unsigned("!=", rest, I64(0)), b.icmp_signed("<", b.xor(rest, safe), I64(0)))
        if op == "floordiv":
            result = b.select(minus, b.neg(left), b.select(off, b.sub(quotient, I64(1)), quotient))
        else:
            result = b.select(minus, I64(0), b.select(off, b.add(rest, safe), rest))
        return b.select(zero, I64(0), result)

    def float_division(self, op: str, left: Any, right: Any) -> Any:
        """CPython's float_divmod, but that a zero divisor gives left / right and NaN instead of an error."""
        b, zero = self.builder, F64(0.0)
        sign = self.intrinsic("llvm.copysign.f64", F64, [F64, F64])
        rest = b.call(self.libm("fmod"), [left, right])
        some = b.fcmp_unordered("!=", rest, zero)
        other_side = b.xor(b.fcmp_ordered("<", right, zero), b.fcmp_ordered("<", rest, zero))
        moved = b.select(b.and_(some, other_side), b.fadd(rest, right), rest)
        modulo = b.select(some, moved, b.call(sign, [zero, right]))
        if op == "mod":
            return modulo
        quotient = b.fdiv(b.fsub(left, modulo), right)
        floor = b.call(self.intrinsic("llvm.floor.f64", F64, [F64]), [quotient])
        floor = b.select(b.fcmp_ordered(">", b.fsub(quotient, floor), F64(0.5)), b.fadd(floor, F64(1.0)), floor)
        plain = b.fdiv(left, right)
        result = b.select(b.fcmp_unordered("!=", quotient, zero), floor, b.call(sign, [zero, plain]))
        return b.select(b.fcmp_ordered("==", right, zero), plain, result)

    def libm(self, name: str) -> ir.Function:
        return self.intrinsic("bitactor_libm_" + name, F64, [F64] * LIBM[name])

    def get_Libm(self, e: L.Libm) -> Any:
        return self.builder.call(self.libm(e.name), [self.value(arg) for arg in e.args])

    def get_HelperCall(self, e: L.HelperCall) -> Any:
        return self.builder.call(self.functions[e.name], [self.value(arg) for arg in e.args])

    def get_Compare(self, e: L.Compare) -> Any:
        b, left, right = self.builder, self.value(e.left), self.value(e.right)
        sign = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[e.op]
        if e.left.type == "f8":
            return b.fcmp_unordered(sign, left, right) if sign == "!=" else b.fcmp_ordered(sign, left, right)
        if e.left.type != e.right.type:  # as true numbers: both fit 128 bits
            left = b.sext(left, I128) if e.left.type == "i8" else b.zext(left, I128)
            right = b.sext(right, I128) if e.right.type == "i8" else b.zext(right, I128)
            return b.icmp_signed(sign, left, right)
        return b.icmp_signed(sign, left, right) if e.left.type == "i8" else b.icmp_unsigned(sign, left, right)

    def branched(self, test: Any, yes: L.Expr | Any, no: L.Expr | Any, kind: Compute) -> Any:
        """Evaluates one of the two; a value that is no expression stands for itself."""
        b = self.builder
        blocks = [self.function.append_basic_block(n) for n in ("yes", "no")]
        end = self.function.append_basic_block("both")
        b.cbranch(test, *blocks)
        incoming = []
        for block, part in zip(blocks, (yes, no), strict=True):
            b.position_at_end(block)
            value = part if isinstance(part, ir.Value) else self.value(part)
            incoming.append((value, b.block))
            b.branch(end)
        b.position_at_end(end)
        phi = b.phi(COMPUTE[kind])
        for value, block in incoming:
            phi.add_incoming(value, block)
        return phi

    def get_Logic(self, e: L.Logic) -> Any:
        left = self.value(e.left)
        if e.op == "and":
            return self.branched(left, e.right, I1(0), "bool")
        return self.branched(left, I1(1), e.right, "bool")

    def get_Choice(self, e: L.Choice) -> Any:
        return self.branched(self.value(e.test), e.yes, e.no, e.type)

    # --- memory ---

    def load(self, base: Any, offset: Any, storage: Storage) -> Any:
        b = self.builder
        value = b.load(b.gep(base, [offset], source_etype=I8), align=1, typ=_storage_type(storage))
        if storage == "f8" or SIZE[storage] == 8:
            return value
        if storage == "f4":
            return b.fpext(value, F64)
        if storage == "bool":
            return b.icmp_unsigned("!=", value, I8(0))
        return b.sext(value, I64) if storage[0] == "i" else b.zext(value, I64)

    def store(self, base: Any, offset: Any, storage: Storage, value: Any) -> None:
        """Narrow and store; NaN in one pattern, chosen among integers, where no optimiser may take it for another."""
        b = self.builder
        if storage in ("f8", "f4"):
            bits_type, pattern = (I64, NAN64) if storage == "f8" else (I32, NAN32)
            nan = b.fcmp_unordered("uno", value, value)
            bits = b.bitcast(value if storage == "f8" else b.fptrunc(value, F32), bits_type)
            value = b.select(nan, bits_type(pattern), bits)
        elif storage == "bool":
            value = b.zext(value, I8)
        elif SIZE[storage] < 8:
            value = b.trunc(value, _storage_type(storage))
        b.store(value, b.gep(base, [offset], source_etype=I8), align=1)


class _Handler(_Body):
    """The loop over the batch. What it has in registers: the state, the signal and its index, the emits so far."""

    def build(self, program: L.Program) -> None:
        b, function = self.builder, self.function
        self.program = program
        self.ctx, states, slots, signals, order, n = function.args
        self.declare(program.locals)
        self.emit_n, at, self.error = b.alloca(I32), b.alloca(I32), b.alloca(I32)
        self.emit_begin = b.alloca(I32)
        undo = b.alloca(I8, size=program.stride) if program.needs_undo else None
        self.emits = b.load(self.field(CTX_EMITS), typ=PTR)
        self.emit_cap = b.load(self.field(CTX_EMIT_CAP), typ=I32)
        b.store(b.load(self.field(CTX_EMIT_N), typ=I32), self.emit_n)
        b.store(I32(0), at)
        head, body, self.next, done = (function.append_basic_block(x) for x in ("head", "body", "next", "done"))
        self.full, self.raised = function.append_basic_block("full"), function.append_basic_block("raised")
        b.branch(head)
        b.position_at_end(head)
        i = b.load(at, typ=I32)
        b.cbranch(b.icmp_unsigned("<", i, n), body, done)
        b.position_at_end(body)
        wide = b.zext(i, I64)
        slot = b.zext(b.load(b.gep(slots, [wide], source_etype=I32), typ=I32), I64)
        self.state = b.gep(states, [b.mul(slot, I64(program.stride))], source_etype=I8)
        self.cause = b.zext(b.load(b.gep(order, [wide], source_etype=I16), typ=I16), I64)
        self.signal = b.gep(signals, [b.mul(self.cause, I64(SIGNAL_BYTES))], source_etype=I8)
        used = b.load(self.emit_n, typ=I32)
        b.store(used, self.emit_begin)
        if undo is not None:
            self.copy(undo, self.state, program.stride)
        if program.emits_max:
            room = b.sub(self.emit_cap, used)
            go = function.append_basic_block("room")
            enough = b.icmp_unsigned(">=", room, I32(program.emits_max))
            b.cbranch(enough, go, self.no_room(used))
            b.position_at_end(go)
        self.block(program.body)
        if not b.block.is_terminated:
            b.branch(self.next)
        b.position_at_end(self.next)
        b.store(b.add(b.load(at, typ=I32), I32(1)), at)
        b.branch(head)
        self.leave(done, DONE, n)
        b.position_at_end(self.full)
        self.take_back(undo)
        self.leave(b.block, EMIT_FULL, b.load(at, typ=I32))
        b.position_at_end(self.raised)
        self.take_back(undo)
        b.store(b.load(self.error, typ=I32), self.field(CTX_ERROR))
        self.leave(b.block, RAISED, b.load(at, typ=I32))

    def field(self, offset: int) -> Any:
        return self.builder.gep(self.ctx, [I64(offset)], source_etype=I8)

    def copy(self, to: Any, source: Any, size: int) -> None:
        memcpy = self.intrinsic("llvm.memcpy.p0.p0.i64", ir.VoidType(), [PTR, PTR, I64, I1])
        self.builder.call(memcpy, [to, source, I64(size), I1(0)])

    def take_back(self, undo: Any) -> None:
        if undo is not None:
            self.copy(self.state, undo, self.program.stride)
        self.builder.store(self.builder.load(self.emit_begin, typ=I32), self.emit_n)

    def leave(self, block: ir.Block, status: int, returned: Any) -> None:
        self.builder.position_at_end(block)
        self.builder.store(self.builder.load(self.emit_n, typ=I32), self.field(CTX_EMIT_N))
        self.builder.store(I32(status), self.field(CTX_STATUS))
        self.builder.ret(returned)

    def no_room(self, used: Any) -> ir.Block:
        """Where to go without room for a signal's emits: full, or raised when even an empty buffer is too small."""
        here = self.builder.block
        block = self.function.append_basic_block("no_room")
        self.builder.position_at_end(block)
        self.builder.store(I32(TOO_MANY_EMITS), self.error)
        empty = self.builder.icmp_unsigned("==", used, I32(0))
        self.builder.cbranch(empty, self.raised, self.full)
        self.builder.position_at_end(here)
        return block

    def do_Raise(self, s: L.Raise) -> None:
        self.builder.store(I32(s.site), self.error)
        self.builder.branch(self.raised)

    def do_Return(self, s: L.Return) -> None:
        self.builder.branch(self.next)

    def do_Emit(self, s: L.Emit) -> None:
        b = self.builder
        values = [self.value(e) for e in (s.key, s.time, s.value, s.aux)]
        used = b.load(self.emit_n, typ=I32)
        if self.program.emits_max is None:
            go = self.function.append_basic_block("emit")
            enough = b.icmp_unsigned("<", used, self.emit_cap)
            b.cbranch(enough, go, self.no_room(b.load(self.emit_begin, typ=I32)))
            b.position_at_end(go)
        out = b.gep(self.emits, [b.mul(b.zext(used, I64), I64(EMIT_BYTES))], source_etype=I8)
        key, time, value, aux = values
        b.store(I32(s.kind), out, align=1)  # kind and flags
        self.store(out, I64(4), s.aux_storage, aux)
        self.store(out, I64(8), "u8", key)
        self.store(out, I64(16), "u8", time)
        self.store(out, I64(24), s.value_storage, value)
        b.store(b.trunc(self.cause, I32), b.gep(out, [I64(32)], source_etype=I8), align=1)
        b.store(I32(0), b.gep(out, [I64(36)], source_etype=I8), align=1)
        b.store(b.add(used, I32(1)), self.emit_n)

    def do_Store(self, s: L.Store) -> None:
        value = self.value(s.value)
        self.store(self.state, self.offset(s.target), s.target.storage, value)

    def offset(self, place: L.Field | L.Element) -> Any:
        b = self.builder
        if isinstance(place, L.Field):
            return I64(place.offset)
        index = self.value(place.index)
        if place.site:
            inside = self.function.append_basic_block("inside")
            outside = self.function.append_basic_block("outside")
            b.cbranch(b.icmp_unsigned("<", index, I64(place.count)), inside, outside)
            b.position_at_end(outside)
            b.store(I32(place.site), self.error)
            b.branch(self.raised)
            b.position_at_end(inside)
        return b.add(b.mul(index, I64(SIZE[place.storage])), I64(place.offset))

    def get_Field(self, e: L.Field) -> Any:
        return self.load(self.state, I64(e.offset), e.storage)

    def get_Element(self, e: L.Element) -> Any:
        return self.load(self.state, self.offset(e), e.storage)

    def get_SignalField(self, e: L.SignalField) -> Any:
        return self.load(self.signal, I64(e.offset), e.storage)


def build_ir(program: L.Program) -> str:
    """The LLVM module of a handler, as text. Pure."""
    module = ir.Module("handler")
    functions: dict[str, ir.Function] = {}
    for helper in program.functions:
        kinds = dict(helper.locals)
        function = ir.Function(
            module,
            ir.FunctionType(COMPUTE[helper.result], [COMPUTE[kinds[p]] for p in helper.params]),
            "helper_" + helper.name,
        )
        function.linkage = "internal"
        function.attributes.add("alwaysinline")
        functions[helper.name] = function
        body = _Body(module, function, functions)
        body.declare(helper.locals)
        for name, argument in zip(helper.params, function.args, strict=True):
            body.builder.store(argument, body.locals[name])
        body.block(helper.body)
        if not body.builder.block.is_terminated:
            body.builder.unreachable()
    handler = ir.Function(module, ir.FunctionType(I32, [PTR, PTR, PTR, PTR, PTR, I32]), HANDLER)
    for argument in handler.args[:5]:
        argument.add_attribute("noalias")
    handler.attributes.add("nounwind")
    _Handler(module, handler, functions).build(program)
    return str(module)
