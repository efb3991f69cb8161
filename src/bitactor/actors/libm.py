"""The platform's C math library: one address for each function, the same for machine code and for Python mode."""

import ctypes
import ctypes.util
import hashlib
import math
import platform
import struct
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


@cache
def identity() -> str:
    """What this library computes, as version and a hash of its results at fixed points; part of a fingerprint.

    The version alone does not tell: glibc picks other code for processors with and without fused multiply-add.
    """
    digest = hashlib.blake2b(digest_size=16)
    points = [math.ldexp(1.0 + i * 0.0078125 * 1.0000001, i % 9 - 4) * (-1) ** (i // 3) for i in range(240)]
    for name, arguments in LIBM.items():
        call = function(name)
        results = (
            [call(x) for x in points] if arguments == 1 else [call(abs(x), points[i - 7]) for i, x in enumerate(points)]
        )
        digest.update(b"".join(struct.pack("<d", math.nan if y != y else y) for y in results))
    return f"{' '.join(platform.libc_ver())} {digest.hexdigest()}"
