"""The platform's C math library: one address for each function, the same for machine code and for Python mode."""

import ctypes
import ctypes.util
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

from bitactor.actors.types import LIBM

_ROUNDING = ("sqrt", "floor", "ceil", "trunc", "rint")


@cache
def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libm.so.6")  # glibc's; asking for the name would start a process
    except OSError:
        return ctypes.CDLL(ctypes.util.find_library("m") or ctypes.util.find_library("c"))


@cache
def function(name: str) -> Callable[..., float]:
    """The library's function on Python floats."""
    found: Any = getattr(_library(), name)
    found.restype = ctypes.c_double
    found.argtypes = [ctypes.c_double] * (1 if name in _ROUNDING else LIBM[name])
    return found  # type: ignore[no-any-return]


def address(name: str) -> int:
    """Where the function lies in this process."""
    return ctypes.cast(getattr(_library(), name), ctypes.c_void_p).value or 0


def identity() -> str:
    """What this library is: results of its functions may differ between builds, so it is part of a fingerprint."""
    return " ".join(platform.libc_ver())
