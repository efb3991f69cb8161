"""From a handler's syntax tree to the typed tree: statements, names and the errors a person can act on.

The tree is checked again until the types of its locals stand still: a local's type is the join over its assignments,
and a later one may widen it. Expressions are in expressions.py. Nothing here runs the handler.
"""

import ast
import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from bitactor.actors import language as L
from bitactor.actors.expressions import Expressions
from bitactor.actors.source import Source
from bitactor.actors.types import LOADS, Compute, Storage, meet
from bitactor.schema import Kind, StateLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

PARAMETERS = ("state", "signal", "emit")
RESERVED = ("clock", "timer")
_NO = {
    "Try": "errors are not caught inside a handler: raise, and the signal becomes a dead letter",
    "TryStar": "errors are not caught inside a handler",
    "With": "a handler has nothing to open: remove the with statement",
    "Import": "import at the top of the file",
    "ImportFrom": "import at the top of the file",
    "Global": "keep what must last in the actor's state",
    "Nonlocal": "keep what must last in the actor's state",
    "FunctionDef": "define helper functions at the top of the file",
    "ClassDef": "define classes elsewhere; a handler has numbers only",
    "Delete": "a field of the state cannot be deleted: set it to 0",
    "Match": "write if and elif",
    "AsyncFor": "write for over range(...)",
    "AsyncWith": "a handler has nothing to open",
}


class Checker(Expressions):
    """One pass over one function (the handler, or a helper with its parameters' types)."""

    def __init__(
        self,
        source: Source,
        app_kinds: "Sequence[Kind]",
        kinds: "Sequence[Kind]",
        layout: StateLayout | None,
        known: dict[str, Compute],
        helpers: dict[Any, L.Function],
        stack: tuple[Any, ...],
        params: dict[str, Compute] | None,
    ) -> None:
        super().__init__(source)
        self.app_kinds = app_kinds
        self.kinds: frozenset[Kind] = frozenset(kinds)
        self.layout = layout
        self.known = known
        self.helpers = helpers
        self.stack = stack
        self.is_helper = params is not None
        self.sites: list[L.Site] = []
        self.emits: list[Kind] = []
        self.emit_sites = 0
        self.emit_in_loop = False
        self.loops = 0
        self.result: Compute | None = None
        self.assigned: set[str] = set(params or ())
        self.roles: set[str] = set()

    # --- statements ---

    def block(self, body: list[ast.stmt]) -> tuple[tuple[L.Stmt, ...], bool]:
        """The statements, and whether the end is reached."""
        done: list[L.Stmt] = []
        for node in body:
            done.extend(self.statement(node))
            if isinstance(node, (ast.Return, ast.Raise, ast.Break, ast.Continue)):
                return tuple(done), False
            if isinstance(node, ast.If) and self.dead:
                self.dead = False
                return tuple(done), False
        return tuple(done), True

    dead = False

    def statement(self, node: ast.stmt) -> list[L.Stmt]:
        method: Callable[[Any], list[L.Stmt]] | None = getattr(self, "on_" + type(node).__name__, None)
        if method is not None:
            return method(node)
        name = type(node).__name__
        raise self.error(
            node, f"{name.lower()} is not possible in a handler: {_NO.get(name, 'write it with if, while and for')}"
        )

    def on_Pass(self, node: ast.Pass) -> list[L.Stmt]:
        return []

    def on_Expr(self, node: ast.Expr) -> list[L.Stmt]:
        value = node.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return []  # a docstring
        if isinstance(value, ast.Call) and self.is_role(value.func, "emit"):
            return [self.emit(value)]
        return [L.Evaluate(self.expr(value))]

    def on_Assign(self, node: ast.Assign) -> list[L.Stmt]:
        if len(node.targets) != 1:
            raise self.error(node, "assign to one name at a time")
        if isinstance(node.targets[0], (ast.Tuple, ast.List)):
            raise self.error(node, "assign to one name at a time: a, b = ... is not possible in a handler")
        return [self.assign(node.targets[0], self.expr(node.value), node)]

    def on_AnnAssign(self, node: ast.AnnAssign) -> list[L.Stmt]:
        if node.value is None:
            raise self.error(node, "a declaration without a value means nothing here: assign one")
        return [self.assign(node.target, self.expr(node.value), node)]

    def on_AugAssign(self, node: ast.AugAssign) -> list[L.Stmt]:
        read = ast.copy_location(ast.parse(ast.unparse(node.target), mode="eval").body, node.target)
        for part in ast.walk(read):
            ast.copy_location(part, node.target)
        value = self.binary(node, node.op, read, node.value)
        return [self.assign(node.target, value, node)]

    def assign(self, target: ast.expr, value: L.Expr, node: ast.stmt) -> L.Stmt:
        if isinstance(target, ast.Name):
            return self.assign_local(target.id, value, node)
        if self.is_signal(target):
            raise self.error(node, "a signal cannot be changed: keep the new value in a local name or in the state")
        place = self.place(target)
        wanted = f"state.{place.name} ({place.storage})"
        return L.Store(place, self.stored(value, place.storage, wanted, node))

    def assign_local(self, name: str, value: L.Expr, node: ast.AST) -> L.Stmt:
        if name in self.roles:
            raise self.error(node, f"{name} is a parameter of the handler: choose another name")
        before = self.known.get(name)
        if before is None:
            self.known[name] = value.type
        elif before != value.type:
            self.known[name] = meet(before, value.type)
        self.assigned.add(name)
        return L.Assign(name, self.convert(value, self.known[name]))

    def on_If(self, node: ast.If) -> list[L.Stmt]:
        test = self.truth(node.test)
        yes, no = self.narrowed(node.test)
        kinds, assigned = self.kinds, set(self.assigned)
        self.kinds = yes
        body, body_ends = self.block(node.body)
        after_body, self.assigned, self.kinds = self.assigned, set(assigned), no
        orelse, else_ends = self.block(node.orelse)
        after_else, self.kinds = self.assigned, kinds
        if body_ends and else_ends:
            self.assigned = after_body & after_else
        elif body_ends:
            self.assigned, self.kinds = after_body, yes
        elif else_ends:
            self.assigned, self.kinds = after_else, no
        else:
            self.dead = True
        return [L.If(test, body, orelse)]

    def on_While(self, node: ast.While) -> list[L.Stmt]:
        if node.orelse:
            raise self.error(node.orelse[0], "while ... else is not possible in a handler: use a local flag")
        test = self.truth(node.test)
        return [L.While(test, self.loop(node.body))]

    def on_For(self, node: ast.For) -> list[L.Stmt]:
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
            raise self.error(node, "for loops go over range(...) only")
        if node.orelse:
            raise self.error(node.orelse[0], "for ... else is not possible in a handler: use a local flag")
        if not isinstance(node.target, ast.Name) or call.keywords or not 1 <= len(call.args) <= 3:
            raise self.error(node, "write for name in range(stop), range(start, stop) or range(start, stop, step)")
        bounds = [self.integer(arg, "range(...)") for arg in call.args]
        start: L.Expr = L.Const("i8", 0) if len(bounds) == 1 else bounds[0]
        stop = bounds[0] if len(bounds) == 1 else bounds[1]
        step = 1
        if len(bounds) == 3:
            last = bounds[2]
            if not isinstance(last, L.Const) or not last.value:
                raise self.error(node, "the step of range(...) must be a literal other than 0")
            step = int(last.value)
        if isinstance(start, L.Const) and stop.type == "u8" and int(start.value) >= 0:
            start = L.Const("u8", start.value)
        kind = meet(start.type, stop.type)
        before = set(self.assigned)
        self.assign_local(node.target.id, L.Const(kind, 0), node)
        if self.known[node.target.id] != kind:
            raise self.error(
                node,
                f"{node.target.id} counts a range and is {self.known[node.target.id]} elsewhere: use another name",
            )
        body = self.loop(node.body)
        self.assigned = before  # an empty range assigns nothing
        return [L.ForRange(kind, node.target.id, self.convert(start, kind), self.convert(stop, kind), step, body)]

    def loop(self, statements: list[ast.stmt]) -> tuple[L.Stmt, ...]:
        before, kinds = set(self.assigned), self.kinds
        self.loops += 1
        body, _ = self.block(statements)
        self.loops -= 1
        self.assigned, self.kinds = before, kinds  # what a break or continue taught holds on its own path only
        return body

    def on_Break(self, node: ast.Break) -> list[L.Stmt]:
        return [L.Break()]

    def on_Continue(self, node: ast.Continue) -> list[L.Stmt]:
        return [L.Continue()]

    def on_Return(self, node: ast.Return) -> list[L.Stmt]:
        if not self.is_helper:
            if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
                raise self.error(node, "a handler returns nothing: keep results in the state, or emit them")
            return [L.Return(None)]
        if node.value is None:
            raise self.error(node, "a helper returns a number on every path")
        value = self.expr(node.value)
        before = self.known.get("return")
        self.known["return"] = (
            value.type if before is None else before if before == value.type else meet(before, value.type)
        )
        return [L.Return(self.convert(value, self.known["return"]))]

    def on_Raise(self, node: ast.Raise) -> list[L.Stmt]:
        if self.is_helper:
            raise self.error(node, "raise in the handler itself: a helper returns a number")
        message = ""
        what = node.exc
        if isinstance(what, ast.Call):
            message = ast.unparse(what.func)
            if what.args:
                if not (isinstance(what.args[0], ast.Constant) and isinstance(what.args[0].value, str)):
                    raise self.error(node, 'raise with a constant text, such as raise ValueError("negative price")')
                message += ": " + what.args[0].value
        elif what is not None:
            message = ast.unparse(what)
        return [L.Raise(self.site(node, message or "raise"))]

    def on_Assert(self, node: ast.Assert) -> list[L.Stmt]:
        if self.is_helper:
            raise self.error(node, "assert in the handler itself: a helper returns a number")
        message = f"AssertionError: {ast.unparse(node.test)}"
        if node.msg is not None:
            if not (isinstance(node.msg, ast.Constant) and isinstance(node.msg.value, str)):
                raise self.error(node, "assert with a constant text")
            message = f"AssertionError: {node.msg.value}"
        test = self.truth(node.test)
        return [L.If(test, (), (L.Raise(self.site(node, message)),))]

    def site(self, node: ast.AST, message: str) -> int:
        self.sites.append(L.Site(getattr(node, "lineno", 0), message))
        return len(self.sites)

    # --- emit ---

    def emit(self, call: ast.Call) -> L.Stmt:
        names = ("kind", "key", "value", "aux", "time")
        given: dict[str, ast.expr] = dict(zip(names, call.args, strict=False))
        if len(call.args) > len(names) or any(isinstance(arg, ast.Starred) for arg in call.args):
            raise self.error(call, "emit takes kind, key, value, aux=0, time=signal.time")
        for keyword in call.keywords:
            if keyword.arg not in names:
                near = difflib.get_close_matches(keyword.arg or "", names, n=1)
                raise self.error(
                    call, f"emit has no argument {keyword.arg!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                )
            if keyword.arg in given:
                raise self.error(call, f"emit is given {keyword.arg} twice")
            given[keyword.arg] = keyword.value
        for name in names[:3]:
            if name not in given:
                raise self.error(call, f"emit lacks {name}: emit(kind, key, value, aux=0, time=signal.time)")
        kind = self.constant(given["kind"])
        if not isinstance(kind, Kind):
            raise self.error(
                call, f"{ast.unparse(given['kind'])} is not a kind: emit needs one made by app.kind(...), known here"
            )
        if kind not in self.app_kinds:
            raise self.error(call, f"kind {kind.name!r} belongs to another app")
        if kind not in self.emits:
            self.emits.append(kind)
        self.emit_sites += 1
        self.emit_in_loop = self.emit_in_loop or self.loops > 0
        value_type, aux_type = cast("Storage", kind.value), cast("Storage", kind.aux)
        key = self.stored(self.expr(given["key"]), "u8", "the key (u8)", call)
        what = f"of kind {kind.name}"
        value = self.stored(self.expr(given["value"]), value_type, f"value ({kind.value}) {what}", call)
        aux: L.Expr = self.convert(L.Const("i8", 0), LOADS[aux_type])
        if "aux" in given:
            aux = self.stored(self.expr(given["aux"]), aux_type, f"aux ({kind.aux}) {what}", call)
        time: L.Expr = L.SignalField("u8", 16, "u8")
        if "time" in given:
            time = self.stored(self.expr(given["time"]), "u8", "the time (u8, ns)", call)
        return L.Emit(kind.number, key, time, value, value_type, aux, aux_type)

    # --- helpers ---

    def helper(self, node: ast.Call, function: Any, args: list[L.Expr]) -> L.Expr:
        if function in self.stack:
            raise self.error(
                node, f"{function.__name__} calls itself: recursion is not possible in a handler, write a loop"
            )
        types = tuple(arg.type for arg in args)
        made = self.helpers.get((function, types))
        if made is None:
            made = self.helpers[function, types] = check_helper(self, node, function, types)
        return L.HelperCall(made.result, made.name, tuple(args))


def check_helper(caller: Checker, node: ast.Call, function: Any, types: tuple[Compute, ...]) -> L.Function:
    """A plain Python function, for arguments of these types."""
    source = Source(function)
    a = source.tree.args
    names = [arg.arg for arg in a.args]
    if a.vararg or a.kwarg or a.kwonlyargs or a.posonlyargs or a.defaults or len(names) != len(types):
        raise caller.error(
            node, f"{function.__name__} takes {len(names)} plain parameters; it is given {len(types)} numbers"
        )
    known: dict[str, Compute] = dict(zip(names, types, strict=True))
    stack = (*caller.stack, function)
    while True:
        before = dict(known)
        checker = Checker(
            source, caller.app_kinds, (), None, known, caller.helpers, stack, dict(zip(names, types, strict=True))
        )
        body, ends = checker.block(source.tree.body)
        if ends:
            raise source.error(source.tree, f"{function.__name__} must return a number on every path")
        if known == before:
            break
    for name, given in zip(names, types, strict=True):
        if known[name] != given:
            raise source.error(source.tree, f"{name} is given as {given} and becomes {known[name]}: use another name")
    result = known.pop("return")
    name = f"{function.__name__}_{len(caller.helpers)}"
    return L.Function(name, tuple(names), tuple(sorted(known.items())), result, body)


def check(
    function: Callable[..., Any], app_kinds: "Sequence[Kind]", kinds: "Sequence[Kind]", layout: StateLayout
) -> tuple[L.Program, tuple[Kind, ...], tuple[L.Site, ...], Source]:
    """Give the typed tree of a handler, the kinds it emits, where it can raise, and its source.

    HandlerError says what is wrong and where.
    """
    source = Source(function)
    arguments = source.tree.args
    if arguments.vararg or arguments.kwarg or arguments.defaults or arguments.kwonlyargs or arguments.posonlyargs:
        raise source.error(source.tree, "a handler's parameters are state, signal and emit, without defaults or stars")
    roles = []
    for arg in arguments.args:
        if arg.arg in RESERVED:
            raise source.error(
                arg, f"parameter {arg.arg} is reserved for a later version: a handler has state, signal and emit"
            )
        if arg.arg not in PARAMETERS:
            near = difflib.get_close_matches(arg.arg, PARAMETERS, n=1)
            raise source.error(
                arg,
                f"parameter {arg.arg!r} is unknown: a handler has state, signal and emit"
                + (f"; did you mean {near[0]!r}?" if near else ""),
            )
        roles.append(arg.arg)
    known: dict[str, Compute] = {}
    helpers: dict[Any, L.Function] = {}
    while True:
        before = dict(known)
        checker = Checker(source, app_kinds, kinds, layout, known, helpers, (function,), None)
        checker.roles = set(roles)
        body, _ = checker.block(source.tree.body)
        if known == before:
            break
    used = set(_libm_names((body, tuple(helpers.values()))))
    program = L.Program(
        locals=tuple(sorted(known.items())),
        body=body,
        functions=tuple(helpers.values()),
        stride=layout.stride,
        emits=tuple(kind.number for kind in checker.emits),
        emits_max=None if checker.emit_in_loop else checker.emit_sites,
        may_raise=bool(checker.sites),
        libm=tuple(sorted(used)),
    )
    return program, tuple(checker.emits), tuple(checker.sites), source


def _libm_names(tree: Any) -> set[str]:
    """Names of math library functions in any part of a typed tree."""
    if isinstance(tree, tuple):
        return set().union(*(_libm_names(part) for part in tree)) if tree else set()
    if not hasattr(tree, "__dataclass_fields__"):
        return set()
    found = (
        set().union(*(_libm_names(getattr(tree, name)) for name in tree.__dataclass_fields__))
        if tree.__dataclass_fields__
        else set()
    )
    if isinstance(tree, L.Libm):
        found.add(tree.name)
    return found
