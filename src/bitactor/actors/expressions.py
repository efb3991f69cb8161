"""Expressions of a handler: names, arithmetic by the type table, calls. The other half of check.py."""

import ast
import difflib
import math
from types import FunctionType
from typing import TYPE_CHECKING, Any

from bitactor.actors import language as L
from bitactor.actors.errors import HandlerError
from bitactor.actors.source import MISSING, Source
from bitactor.actors.types import EXACT, I8_MAX, I8_MIN, LIBM, LOADS, POWER_MAX, U8_MAX, Compute, Storage, meet
from bitactor.schema import Kind, StateLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

_BINARY = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv", ast.Mod: "mod",
    ast.Pow: "pow", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor", ast.LShift: "shl", ast.RShift: "shr",
}  # fmt: skip
_COMPARE = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}
_SIGNAL: dict[str, tuple[Storage, int]] = {"kind": ("u2", 0), "flags": ("u2", 2), "key": ("u8", 8), "time": ("u8", 16)}
_CALLS = "abs, min, max, int, float, bool, round, functions of math, and your own helper functions"
_HINTS = {
    "print": "read dead_letters(), statistics() or emit a signal instead",
    "len": "the size of a state array is known: write the number",
    "list": 'use a fixed array in the state, such as ("f8", 16)',
    "dict": "use the key: an actor has one state for each",
    "set": "use a fixed array in the state",
    "str": "a handler has numbers only",
    "sum": "write a loop over range(...)",
    "range": "range(...) is for loops only",
    "pow": "write a ** b",
}


class Expressions:
    """Typed expressions. What the checker of statements adds is declared here for the type checker."""

    layout: StateLayout | None
    kinds: frozenset[Kind]
    app_kinds: "Sequence[Kind]"
    known: dict[str, Compute]
    assigned: set[str]
    roles: set[str]

    def __init__(self, source: Source) -> None:
        self.source = source
        self.temporaries = 0

    def error(self, node: ast.AST, message: str) -> HandlerError:
        return self.source.error(node, message)

    def site(self, node: ast.AST, message: str) -> int:
        raise NotImplementedError

    def helper(self, node: ast.Call, function: Any, args: list[L.Expr]) -> L.Expr:
        raise NotImplementedError

    # --- names ---

    def is_role(self, node: ast.AST, role: str) -> bool:
        return isinstance(node, ast.Name) and node.id == role and role in self.roles

    def is_signal(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and self.is_role(node.value, "signal")

    def constant(self, node: ast.AST) -> Any:
        """The Python object that a name (or module.name) stands for, or MISSING."""
        if isinstance(node, ast.Name) and not self.source.is_local(node.id):
            return self.source.named(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.constant(node.value)
            if owner is not MISSING and not isinstance(owner, (int, float, str)):
                return getattr(owner, node.attr, MISSING)
        return MISSING

    def number(self, node: ast.AST, value: Any) -> L.Expr:
        """A captured or literal number."""
        if isinstance(value, Kind):
            return L.Const("u8", value.number)
        if isinstance(value, bool):
            return L.Const("bool", value)
        if isinstance(value, float):
            return L.Const("f8", value)
        if isinstance(value, int):
            if I8_MIN <= value <= I8_MAX:
                return L.Const("i8", value)
            if I8_MAX < value <= U8_MAX:
                return L.Const("u8", value)
            raise self.error(node, f"{value} does not fit 64 bits")
        what = "a text" if isinstance(value, str) else f"a {type(value).__name__}"
        raise self.error(node, f"{ast.unparse(node)} is {what}: a handler computes with int, float and bool only")

    # --- expressions ---

    def expr(self, node: ast.expr) -> L.Expr:
        if isinstance(node, ast.Constant):
            return self.number(node, node.value)
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Subscript):
            return self.place(node)
        if isinstance(node, ast.UnaryOp):
            return self.unary(node)
        if isinstance(node, ast.BinOp):
            return self.binary(node, node.op, node.left, node.right)
        if isinstance(node, ast.Compare):
            return self.compare(node)
        if isinstance(node, ast.BoolOp):
            return self.either(node)
        if isinstance(node, ast.IfExp):
            return self.choice(self.truth(node.test), self.expr(node.body), self.expr(node.orelse))
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.JoinedStr):
            raise self.error(node, "an f-string is a text: a handler computes with int, float and bool only")
        raise self.error(
            node, f"{type(node).__name__} ({ast.unparse(node)}) is not possible in a handler: use plain arithmetic"
        )

    def name(self, node: ast.Name) -> L.Expr:
        name = node.id
        if name in self.roles:
            raise self.error(node, f"{name} is not a number: use {'emit(...)' if name == 'emit' else name + '.field'}")
        if self.source.is_local(name):
            if name not in self.assigned:
                raise self.error(node, f"{name} may not be assigned here: give it a value on every path before")
            return L.Local(self.known[name], name)
        value = self.source.named(name)
        if value is MISSING:
            near = difflib.get_close_matches(name, [*self.known, *self.roles, *self.source.names()], n=1)
            raise self.error(node, f"name {name!r} is not defined" + (f"; did you mean {near[0]!r}?" if near else ""))
        return self.number(node, value)

    def attribute(self, node: ast.Attribute) -> L.Expr:
        if self.is_role(node.value, "signal"):
            return self.signal_field(node)
        if self.is_role(node.value, "state"):
            return self.place(node)
        value = self.constant(node)
        if value is MISSING:
            raise self.error(
                node, f"{ast.unparse(node)} is nothing a handler knows: it has state.field, signal.field and constants"
            )
        return self.number(node, value)

    def signal_field(self, node: ast.Attribute) -> L.Expr:
        if node.attr in _SIGNAL:
            storage, offset = _SIGNAL[node.attr]
            return L.SignalField(LOADS[storage], offset, storage)
        if node.attr not in ("value", "aux"):
            near = difflib.get_close_matches(node.attr, ["kind", "key", "time", "value", "aux", "flags"], n=1)
            raise self.error(
                node,
                f"a signal has no field {node.attr!r}"
                + (f"; did you mean {near[0]!r}?" if near else ": it has kind, key, time, value, aux and flags"),
            )
        types = {getattr(kind, node.attr) for kind in self.kinds}
        if len(types) > 1:
            first = min(self.kinds, key=lambda kind: kind.number)
            raise self.error(
                node,
                f"signal.{node.attr} is {' or '.join(sorted(types))} here: "
                f"ask first, such as if signal.kind == {first.name}:",
            )
        storage = types.pop() if types else "f8"
        return L.SignalField(LOADS[storage], 24 if node.attr == "value" else 4, storage)

    def place(self, node: ast.expr) -> L.Field | L.Element:
        """A field of the state, or an element of an array field."""
        index: ast.expr | None = None
        whole = node
        if isinstance(node, ast.Subscript):
            index, node = node.slice, node.value
        if not (isinstance(node, ast.Attribute) and self.is_role(node.value, "state")):
            raise self.error(
                whole, f"{ast.unparse(whole)} is not a field of the state: write state.name or state.name[index]"
            )
        assert self.layout is not None
        found = self.layout.find(node.attr)
        if found is None:
            names = [f.name for f in self.layout.fields]
            near = difflib.get_close_matches(node.attr, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f": it has {', '.join(names) or 'no fields'}"
            raise self.error(node, f"the state has no field {node.attr!r}{hint}")
        storage: Storage = found.type  # type: ignore[assignment]
        if found.count is None:
            if index is not None:
                raise self.error(whole, f"state.{found.name} is one {found.type}, not an array: leave out [...]")
            return L.Field(LOADS[storage], found.name, found.offset, storage)
        if index is None:
            raise self.error(whole, f"state.{found.name} is an array of {found.count}: write state.{found.name}[index]")
        at = self.integer(index, "an index")
        if isinstance(at, L.Const):
            value = int(at.value)
            if not 0 <= value < found.count:
                raise self.error(
                    whole, f"index {value} is outside state.{found.name}, which has {found.count} elements from 0"
                )
            return L.Element(LOADS[storage], found.name, found.offset, storage, found.count, at, 0)
        site = self.site(whole, f"IndexError: state.{found.name} has {found.count} elements")
        return L.Element(LOADS[storage], found.name, found.offset, storage, found.count, at, site)

    def integer(self, node: ast.expr, what: str) -> L.Expr:
        value = self.expr(node)
        if value.type == "f8":
            raise self.error(node, f"{what} must be an integer: use int(...)")
        return self.convert(value, "i8") if value.type == "bool" else value

    # --- conversions ---

    def convert(self, value: L.Expr, wanted: Compute) -> L.Expr:
        if value.type == wanted:
            return value
        if isinstance(value, L.Const):
            if wanted == "f8":
                return L.Const("f8", float(value.value))
            if wanted == "bool":
                return L.Const("bool", bool(value.value))
            if value.type != "f8":
                bits = int(value.value) & U8_MAX
                return L.Const(wanted, bits - (1 << 64) if wanted == "i8" and bits > I8_MAX else bits)
        return L.Convert(wanted, value)

    def stored(self, value: L.Expr, storage: Storage, what: str, node: ast.AST) -> L.Expr:
        wanted = LOADS[storage]
        if value.type == "f8" and wanted in ("i8", "u8"):
            raise self.error(
                node, f"{what} is an integer and the value is a float: use int(...), which cuts off towards zero"
            )
        return self.convert(value, wanted)

    def is_literal(self, value: L.Expr) -> bool:
        return isinstance(value, L.Const) and value.type == "i8"

    def together(self, left: L.Expr, right: L.Expr) -> tuple[L.Expr, L.Expr, Compute]:
        """Both operands in the type in which they meet; an integer literal takes the other's type if it fits."""
        if self.is_literal(left) and right.type == "u8" and isinstance(left, L.Const) and left.value >= 0:
            left = self.convert(left, "u8")
        if self.is_literal(right) and left.type == "u8" and isinstance(right, L.Const) and right.value >= 0:
            right = self.convert(right, "u8")
        kind = meet(left.type, right.type)
        return self.convert(left, kind), self.convert(right, kind), kind

    def choice(self, test: L.Expr, yes: L.Expr, no: L.Expr) -> L.Expr:
        if yes.type == no.type == "bool":
            return L.Choice("bool", test, yes, no)
        yes, no, kind = self.together(yes, no)
        return L.Choice(kind, test, yes, no)

    def bound(self, value: L.Expr) -> tuple[L.Expr, L.Expr]:
        """The value, evaluated into a temporary; and the temporary, to use again."""
        if isinstance(value, (L.Const, L.Local)):
            return value, value
        self.temporaries += 1
        name = f".{self.temporaries}.{value.type}"
        self.known[name] = value.type
        return L.Bind(value.type, name, value), L.Local(value.type, name)

    # --- operators ---

    def unary(self, node: ast.UnaryOp) -> L.Expr:
        if isinstance(node.op, ast.Not):
            return L.Unary("bool", "not", self.truth(node.operand))
        if (
            isinstance(node.op, ast.USub)
            and isinstance(node.operand, ast.Constant)
            and type(node.operand.value) in (int, float)
        ):
            return self.number(node, -node.operand.value)  # type: ignore[operator]
        value = self.expr(node.operand)
        if value.type == "bool":
            value = self.convert(value, "i8")
        if isinstance(node.op, ast.UAdd):
            return value
        if isinstance(node.op, ast.Invert):
            if value.type == "f8":
                raise self.error(node, "~ needs an integer: use int(...)")
            return L.Unary(value.type, "invert", value)
        return L.Unary(value.type, "neg", value)

    def binary(self, node: ast.AST, op: ast.operator, left_node: ast.expr, right_node: ast.expr) -> L.Expr:
        name = _BINARY.get(type(op))
        if name is None:
            raise self.error(node, "@ is not possible in a handler: use plain arithmetic")
        left, right = self.expr(left_node), self.expr(right_node)
        if name == "div":
            return L.Binary("f8", "div", self.convert(left, "f8"), self.convert(right, "f8"))
        if name == "pow":
            return self.power(left, right)
        if name in ("and", "or", "xor", "shl", "shr"):
            if "f8" in (left.type, right.type):
                raise self.error(
                    node,
                    f"{ast.unparse(left_node)}, {ast.unparse(right_node)}: bit operators need integers, use int(...)",
                )
            if left.type == right.type == "bool" and name in ("and", "or", "xor"):
                bits = L.Binary("i8", name, self.convert(left, "i8"), self.convert(right, "i8"))
                return L.Convert("bool", bits)
        if name in ("shl", "shr"):
            kind: Compute = "i8" if left.type == "bool" else left.type
            return L.Binary(kind, name, self.convert(left, kind), self.convert(right, kind))
        left, right, kind = self.together(left, right)
        return L.Binary(kind, name, left, right)

    def power(self, left: L.Expr, right: L.Expr) -> L.Expr:
        if left.type != "f8" and isinstance(right, L.Const) and right.type == "i8" and 0 <= right.value <= POWER_MAX:
            kind: Compute = "i8" if left.type == "bool" else left.type
            return L.Binary(kind, "pow", self.convert(left, kind), self.convert(right, kind))
        return L.Libm("f8", "pow", (self.convert(left, "f8"), self.convert(right, "f8")))

    def compare(self, node: ast.Compare) -> L.Expr:
        result: L.Expr | None = None
        left = self.expr(node.left)
        for i, (op, right_node) in enumerate(zip(node.ops, node.comparators, strict=True)):
            name = _COMPARE.get(type(op))
            if name is None:
                raise self.error(node, f"{ast.unparse(node)}: compare numbers with == != < <= > >=")
            right = self.expr(right_node)
            again = right
            if i + 1 < len(node.ops):
                right, again = self.bound(right)
            one = self.compared(name, left, right)
            result = one if result is None else L.Logic("bool", "and", result, one)
            left = again
        assert result is not None
        return result

    def compared(self, name: str, left: L.Expr, right: L.Expr) -> L.Expr:
        if {left.type, right.type} != {"i8", "u8"}:
            left, right, _ = self.together(left, right)
        else:
            together = self.together(left, right)
            if together[0].type == together[1].type == "u8":
                left, right = together[0], together[1]
        return L.Compare("bool", name, left, right)

    def truth(self, node: ast.expr) -> L.Expr:
        """The expression as a condition."""
        if isinstance(node, ast.BoolOp):
            parts = [self.truth(value) for value in node.values]
            name = "and" if isinstance(node.op, ast.And) else "or"
            result = parts[0]
            for part in parts[1:]:
                result = L.Logic("bool", name, result, part)
            return result
        return self.convert(self.expr(node), "bool")

    def either(self, node: ast.BoolOp) -> L.Expr:
        values = [self.expr(value) for value in node.values]
        if all(value.type == "bool" for value in values):
            return self.truth(node)
        result = values[-1]
        for value in reversed(values[:-1]):
            first, again = self.bound(value)
            test = self.convert(first, "bool")
            result = (
                self.choice(test, result, again) if isinstance(node.op, ast.And) else self.choice(test, again, result)
            )
        return result

    def narrowed(self, test: ast.expr) -> tuple[frozenset[Kind], frozenset[Kind]]:
        """Kinds that are possible when the test holds, and when it does not."""
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Eq, ast.NotEq)):
            for one, other in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
                kind = self.constant(other)
                if (
                    self.is_signal(one)
                    and isinstance(one, ast.Attribute)
                    and one.attr == "kind"
                    and isinstance(kind, Kind)
                ):
                    yes, no = self.kinds & {kind}, self.kinds - {kind}
                    return (yes, no) if isinstance(test.ops[0], ast.Eq) else (no, yes)
        return self.kinds, self.kinds

    # --- calls ---

    def call(self, node: ast.Call) -> L.Expr:
        if self.is_role(node.func, "emit"):
            raise self.error(node, "emit(...) gives nothing back: write it on a line of its own")
        function = self.constant(node.func)
        text = ast.unparse(node.func)
        if node.keywords or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise self.error(node, f"call {text} with plain arguments")
        name = getattr(function, "__name__", text)
        if isinstance(function, FunctionType):
            return self.helper(node, function, [self.expr(arg) for arg in node.args])
        if function is not MISSING and getattr(math, name, None) is function and (name in LIBM or name in EXACT):
            return self.math_call(node, name)
        if function in (abs, min, max, int, float, bool, round):
            return self.builtin_call(node, name)
        near = difflib.get_close_matches(text, ["emit", "abs", "min", "max", "round", "math.sqrt", "math.log"], n=1)
        hint = _HINTS.get(name) or (
            f"did you mean {near[0]}?" if near and function is MISSING else f"it can call {_CALLS}"
        )
        raise self.error(node, f"{text}(...) cannot be called in a handler: {hint}")

    def math_call(self, node: ast.Call, name: str) -> L.Expr:
        wanted = LIBM.get(name) or EXACT[name]
        if len(node.args) != wanted:
            raise self.error(node, f"math.{name} takes {wanted} number{'s' * (wanted > 1)}")
        args = tuple(self.convert(self.expr(arg), "f8") for arg in node.args)
        if name in LIBM:
            return L.Libm("f8", name, args)
        if name in ("floor", "ceil", "trunc"):
            return L.Convert("i8", L.Unary("f8", name, args[0]))
        if name.startswith("is"):
            return L.Unary("bool", name, args[0])
        if name == "copysign":
            return L.Binary("f8", "copysign", args[0], args[1])
        return L.Unary("f8", "abs" if name == "fabs" else name, args[0])

    def builtin_call(self, node: ast.Call, name: str) -> L.Expr:
        args = [self.expr(arg) for arg in node.args]
        if name in ("min", "max"):
            if len(args) < 2:
                raise self.error(node, f"{name} takes two or more numbers")
            result = args[0]
            for arg in args[1:]:
                result = self.smaller(name, result, arg)
            return result
        if len(args) != 1:
            raise self.error(node, f"{name} takes one number here")
        value = args[0]
        if name == "bool":
            return self.convert(value, "bool")
        if name == "float":
            return self.convert(value, "f8")
        if value.type == "bool":
            value = self.convert(value, "i8")
        if name == "abs":
            return value if value.type == "u8" else L.Unary(value.type, "abs", value)
        if value.type != "f8":
            return value
        return L.Convert("i8", L.Unary("f8", "round", value) if name == "round" else value)

    def smaller(self, name: str, left: L.Expr, right: L.Expr) -> L.Expr:
        """As Python does: the first, unless the other is smaller (larger); so a NaN that comes first stays."""
        left, right, _ = self.together(left, right)
        left, left_again = self.bound(left)
        right, right_again = self.bound(right)
        # left is evaluated first: it stands on the left of the comparison
        test = L.Compare("bool", "gt" if name == "min" else "lt", left, right)
        return L.Choice(left_again.type, test, right_again, left_again)
