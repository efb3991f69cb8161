"""The written type table, as data: what a stored value is loaded as, and how two types meet. docs/types.md is its text.

Compute types are ``i8``, ``u8``, ``f8`` and ``bool``; every storage type loads into one of them. A change of meaning
anywhere in the table is a new ``TABLE_VERSION``, and so a new fingerprint of every actor.
"""

from typing import Final, Literal, get_args

TABLE_VERSION: Final = 1

Compute = Literal["i8", "u8", "f8", "bool"]
Storage = Literal["f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "bool"]
STORAGE: Final[tuple[Storage, ...]] = get_args(Storage)

# Storage type -> the type that a load gives.
LOADS: Final[dict[Storage, Compute]] = {
    "f8": "f8", "f4": "f8",
    "i8": "i8", "i4": "i8", "i2": "i8", "i1": "i8",
    "u8": "u8", "u4": "u8", "u2": "u8", "u1": "u8",
    "bool": "bool",
}  # fmt: skip
SIZE: Final[dict[Storage, int]] = {s: 1 if s == "bool" else int(s[1]) for s in STORAGE}

# The type in which two operands of arithmetic meet, and the type of a local assigned both. Symmetric.
MEETS: Final[dict[tuple[Compute, Compute], Compute]] = {
    ("bool", "bool"): "i8", ("bool", "i8"): "i8", ("bool", "u8"): "i8", ("bool", "f8"): "f8",
    ("i8", "i8"): "i8", ("i8", "u8"): "i8", ("i8", "f8"): "f8",
    ("u8", "u8"): "u8", ("u8", "f8"): "f8",
    ("f8", "f8"): "f8",
}  # fmt: skip

I8_MIN: Final = -(1 << 63)
I8_MAX: Final = (1 << 63) - 1
U8_MAX: Final = (1 << 64) - 1
POWER_MAX: Final = 64  # largest literal exponent of an integer power

# Functions of the platform's C math library, by number of f8 arguments; both modes call the same symbol.
LIBM: Final[dict[str, int]] = {
    "exp": 1, "expm1": 1, "log": 1, "log2": 1, "log10": 1, "log1p": 1, "sin": 1, "cos": 1, "tan": 1, "asin": 1,
    "acos": 1, "atan": 1, "sinh": 1, "cosh": 1, "tanh": 1, "atan2": 2, "pow": 2, "fmod": 2, "hypot": 2,
}  # fmt: skip
# Functions of `math` that the table defines exactly: no library is asked.
EXACT: Final[dict[str, int]] = {
    "sqrt": 1, "fabs": 1, "copysign": 2, "floor": 1, "ceil": 1, "trunc": 1, "isnan": 1, "isinf": 1, "isfinite": 1,
}  # fmt: skip


def meet(a: Compute, b: Compute) -> Compute:
    """The type in which operands of types `a` and `b` are computed."""
    found = MEETS.get((a, b))
    return found if found is not None else MEETS[b, a]
