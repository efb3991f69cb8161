"""The typed tree: what a handler means after checking. Both back ends read only this; every conversion is explicit.

Nodes are immutable and their ``repr`` is the canonical text that the fingerprint is taken of: no line numbers in it.
Types are compute types of the table unless a field is named ``storage``.
"""

from dataclasses import dataclass

from bitactor.actors.types import Compute, Storage


@dataclass(frozen=True, slots=True)
class Const:
    type: Compute
    value: int | float | bool


@dataclass(frozen=True, slots=True)
class Local:
    type: Compute
    name: str


@dataclass(frozen=True, slots=True)
class Bind:
    """Evaluates `value` into a local that the compiler made, and is its value."""

    type: Compute
    name: str
    value: "Expr"


@dataclass(frozen=True, slots=True)
class Field:
    """A scalar field of the state; `offset` in bytes."""

    type: Compute
    name: str
    offset: int
    storage: Storage


@dataclass(frozen=True, slots=True)
class Element:
    """An element of an array field. `site` is the error code when the index is outside, or 0: it cannot be."""

    type: Compute
    name: str
    offset: int
    storage: Storage
    count: int
    index: "Expr"
    site: int


@dataclass(frozen=True, slots=True)
class SignalField:
    type: Compute
    offset: int
    storage: Storage


@dataclass(frozen=True, slots=True)
class Convert:
    """To `type`: i8 and u8 by their bits, integers to f8 to nearest even, f8 to i8 saturating, to bool by truth."""

    type: Compute
    value: "Expr"


@dataclass(frozen=True, slots=True)
class Unary:
    """neg, invert, not, abs, sqrt, floor, ceil, trunc, round, isnan, isinf, isfinite."""

    type: Compute
    op: str
    value: "Expr"


@dataclass(frozen=True, slots=True)
class Binary:
    """add sub mul div floordiv mod pow and or xor shl shr min max copysign; operands have type `type`."""

    type: Compute
    op: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Compare:
    """eq ne lt le gt ge. Operands have one type, or are i8 and u8 and compare as true numbers."""

    type: Compute
    op: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Logic:
    """and, or: bool operands, the right one evaluated only if needed."""

    type: Compute
    op: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Choice:
    type: Compute
    test: "Expr"
    yes: "Expr"
    no: "Expr"


@dataclass(frozen=True, slots=True)
class Libm:
    type: Compute
    name: str
    args: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class HelperCall:
    type: Compute
    name: str
    args: tuple["Expr", ...]


Expr = (
    Const | Local | Bind | Field | Element | SignalField | Convert | Unary | Binary | Compare | Logic | Choice
    | Libm | HelperCall
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Assign:
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Store:
    """`value` has the compute type that the target loads as; the store narrows it. NaN is stored canonically."""

    target: Field | Element
    value: Expr


@dataclass(frozen=True, slots=True)
class If:
    test: Expr
    body: tuple["Stmt", ...]
    orelse: tuple["Stmt", ...]


@dataclass(frozen=True, slots=True)
class While:
    test: Expr
    body: tuple["Stmt", ...]


@dataclass(frozen=True, slots=True)
class ForRange:
    """`start` and `stop` have type `type` (i8 or u8) and are evaluated once; `step` is a constant, not 0."""

    type: Compute
    name: str
    start: Expr
    stop: Expr
    step: int
    body: tuple["Stmt", ...]


@dataclass(frozen=True, slots=True)
class Break:
    pass


@dataclass(frozen=True, slots=True)
class Continue:
    pass


@dataclass(frozen=True, slots=True)
class Return:
    value: Expr | None


@dataclass(frozen=True, slots=True)
class Raise:
    site: int


@dataclass(frozen=True, slots=True)
class Emit:
    kind: int
    key: Expr
    time: Expr
    value: Expr
    value_storage: Storage
    aux: Expr
    aux_storage: Storage


@dataclass(frozen=True, slots=True)
class Evaluate:
    value: Expr


Stmt = Assign | Store | If | While | ForRange | Break | Continue | Return | Raise | Emit | Evaluate


@dataclass(frozen=True, slots=True)
class Function:
    """A helper, specialised to the types of its parameters; `locals` includes them."""

    name: str
    params: tuple[str, ...]
    locals: tuple[tuple[str, Compute], ...]
    result: Compute
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """A place that can raise; its code is its index in Program.sites plus 1."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Program:
    """One handler. `emits_max`: most emits of one signal, or None when a loop emits and each emit is checked."""

    locals: tuple[tuple[str, Compute], ...]
    body: tuple[Stmt, ...]
    functions: tuple[Function, ...]
    stride: int
    emits: tuple[int, ...]
    emits_max: int | None
    may_raise: bool
    libm: tuple[str, ...]

    @property
    def needs_undo(self) -> bool:
        """Whether a begun signal may have to be taken back."""
        return self.may_raise or self.emits_max is None
