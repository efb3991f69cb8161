"""Kinds and state layouts: what a signal of a kind carries and how an actor's state lies in memory.

Plain immutable descriptions, safe to share between threads. Fingerprints are BLAKE2b over canonical text, so the same
declaration has the same fingerprint in every process.
"""

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np

VALUE_TYPES: Final = ("f8", "i8", "u8")
AUX_TYPES: Final = ("u4", "i4", "f4")
FIELD_TYPES: Final = ("f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "bool")
KIND_MAX: Final = 65535
STATE_BYTES_MAX: Final = 1 << 20
STATE_NAMES_TAKEN: Final = ("key", "position", "keys")  # attributes of State; `key` is a column of Table
_UNITS_NS: Final = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}


def duration_ns(given: str | float | timedelta, what: str) -> int:
    """Nanoseconds of "1d", "90s", "1.5h", a number of seconds above 0, or a timedelta. ValueError names `what`."""
    if isinstance(given, timedelta):
        return round(given / timedelta(microseconds=1) * 1000)
    if isinstance(given, (int, float)) and not isinstance(given, bool) and given > 0:
        return round(given * 10**9)
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(ns|us|ms|s|m|h|d)\s*", given) if isinstance(given, str) else None
    if match is None or not float(match[1]):
        raise ValueError(f'{what} is {given!r}: give a duration such as "1d", "90s" or "500ms", or a number of seconds')
    return round(float(match[1]) * _UNITS_NS[match[2]])


@dataclass(frozen=True, slots=True)
class Kind:
    """A declared kind of signal: its name, number, and the types of its 8 bytes of value and 4 bytes of aux."""

    name: str
    number: int
    value: str
    aux: str


def make_kind(name: str, number: int, value: str, aux: str) -> Kind:
    """A checked Kind. Raises TypeError or ValueError that says what would be right."""
    _check_name("kind", name)
    if not isinstance(number, int) or isinstance(number, bool):  # type: ignore[redundant-expr]
        raise TypeError(f"kind {name!r}: number must be an int, not {type(number).__name__}")
    if not 1 <= number <= KIND_MAX:
        raise ValueError(f"kind {name!r}: number {number} is outside 1..{KIND_MAX}")
    _check_type(f"kind {name!r}: value", value, VALUE_TYPES)
    _check_type(f"kind {name!r}: aux", aux, AUX_TYPES)
    return Kind(name, number, value, aux)


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field of a state with a default that is not zero; made by `field`."""

    type: str
    count: int | None
    default: Any


def field(type: str, count: int | None = None, *, default: Any = 0) -> FieldSpec:
    """A state field: `field("f8", default=1.0)`, or an array of `count` elements that all begin as `default`."""
    return FieldSpec(type, count, default)


@dataclass(frozen=True, slots=True)
class StateField:
    """One field as laid out: `offset` in bytes, `count` is None for a scalar."""

    name: str
    type: str
    count: int | None
    offset: int


@dataclass(frozen=True, slots=True)
class StateLayout:
    """A state in memory: C layout, naturally aligned; `stride` is its size rounded up to 8, `init` one fresh state."""

    fields: tuple[StateField, ...]
    dtype: "np.dtype[np.void]"
    stride: int
    init: bytes

    def find(self, name: str) -> StateField | None:
        """The field of that name, or None."""
        return next((f for f in self.fields if f.name == name), None)


def make_layout(actor: str, state: Mapping[str, Any]) -> StateLayout:
    """The layout of `state`, a mapping of names to "f8", ("f8", 16) or `field(...)`.

    Raises TypeError or ValueError naming the actor, the field and what would be right.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f'actor {actor!r}: state must be a dict such as {{"count": "u8"}}, not {state!r}')
    specs: dict[str, FieldSpec] = {}
    for name, given in state.items():
        where = f"actor {actor!r}: state field"
        _check_name(where, name)
        if name in STATE_NAMES_TAKEN:
            raise ValueError(
                f"{where} {name!r}: every state has a {name} of its own, and every table; call the field otherwise"
            )
        spec = _field_spec(f"{where} {name!r}", given)
        _check_type(f"{where} {name!r}", spec.type, FIELD_TYPES)
        if spec.count is not None and not 1 <= spec.count <= STATE_BYTES_MAX:
            raise ValueError(f"{where} {name!r}: an array has 1..{STATE_BYTES_MAX} elements, not {spec.count}")
        specs[name] = spec
    dtype = np.dtype(
        [(n, _numpy(s.type)) if s.count is None else (n, _numpy(s.type), (s.count,)) for n, s in specs.items()],
        align=True,
    )
    stride = max(8, -(-dtype.itemsize // 8) * 8)
    if stride > STATE_BYTES_MAX:
        raise ValueError(f"actor {actor!r}: a state of {stride} bytes is larger than {STATE_BYTES_MAX}")
    fresh = np.zeros((), dtype=dtype)
    for name, spec in specs.items():
        _set_default(f"actor {actor!r}: state field {name!r}", fresh, name, spec)
    offsets: Mapping[str, Any] = dtype.fields or {}
    fields = tuple(StateField(n, s.type, s.count, int(offsets[n][1])) for n, s in specs.items())
    return StateLayout(fields, dtype, stride, fresh.tobytes().ljust(stride, b"\0"))


def _field_spec(where: str, given: Any) -> FieldSpec:
    if isinstance(given, FieldSpec):
        return given
    if isinstance(given, str):
        return FieldSpec(given, None, 0)
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], int):
        return FieldSpec(given[0], given[1], 0)
    raise TypeError(f'{where}: give "f8", ("f8", 16) or ba.field("f8", default=1.0), not {given!r}')


def _set_default(where: str, fresh: "np.ndarray[Any, Any]", name: str, spec: FieldSpec) -> None:
    scalar = _numpy(spec.type)
    values = np.asarray(spec.default)
    if values.dtype.kind not in "biuf" or (values.ndim and spec.count is None):
        raise TypeError(f"{where}: default {spec.default!r} is not a number of type {spec.type}")
    if scalar.kind in "iu":
        info = np.iinfo(scalar)
        if values.dtype.kind == "f" or any(not int(info.min) <= int(v) <= int(info.max) for v in values.reshape(-1)):
            raise ValueError(f"{where}: default {spec.default!r} does not fit {spec.type}")
    if scalar.kind == "f":
        values = np.where(np.isnan(values), np.nan, values)  # the one NaN that is ever stored
    fresh[name] = values.astype(scalar)


def _numpy(type_name: str) -> "np.dtype[Any]":
    return np.dtype("?" if type_name == "bool" else "=" + type_name)


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise ValueError(f"{what}: {name!r} is not a name: letters, digits and _, not beginning with _ or a digit")


def _check_type(what: str, given: object, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        near = difflib.get_close_matches(str(given), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what} type {given!r} is not one of {', '.join(allowed)}{hint}")


def fingerprint(*parts: str) -> str:
    """BLAKE2b-256 of the parts, in hexadecimal; parts cannot run into one another."""
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
