"""Actors of the C ABI written in Python through ctypes, and the little of an App that an engine needs.

Slow on purpose of being plain: they call one Python function a signal and follow core/include/bitactor/actor.h to the
letter, so the tests of the engine need no compiler of handlers.
"""

import ctypes
from types import SimpleNamespace

import numpy as np

from bitactor.schema import Kind, make_layout
from bitactor.signals import signal_dtype

EMIT_BYTES, CTX_STATUS, CTX_ERROR, CTX_EMIT_N, CTX_EMIT_CAP, CTX_EMITS, CTX_WALL = 40, 1, 2, 3, 4, 24, 32
HANDLER = ctypes.CFUNCTYPE(
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint16),
    ctypes.c_uint32,
)
RAW = np.dtype([("kind", "u2"), ("flags", "u2"), ("aux", "u4"), ("key", "u8"), ("time", "u8"), ("value", "u8")])


class Full(Exception):
    pass


def bits(number, type_of):
    return int(np.array(number, type_of).view("u" + type_of[1]))


class CActor:
    def __init__(self, name, function, kinds, state, emits=(), cap=0, idle_ns=0, budget=0, reads_wall=False):
        self.name, self.function, self.kinds, self.emits = name, function, tuple(kinds), tuple(emits)
        self.layout = make_layout(name, state)
        self.partition_keys_max, self.idle_ns, self.tick_budget = cap, idle_ns, budget
        self.reads_wall = reads_wall
        self.handler = HANDLER(self.handle)
        self.address = ctypes.cast(self.handler, ctypes.c_void_p).value
        self.dtypes = {kind.number: signal_dtype(kind.value, kind.aux) for kind in self.kinds}

    def compile(self):
        return self

    def raise_site(self, code):
        return ("c_actors.py", code, f"raised {code}")

    def handle(self, ctx_at, states, slots, signals, order, n):
        ctx = (ctypes.c_uint32 * 14).from_address(ctx_at)
        emits_at = ctypes.c_uint64.from_address(ctx_at + CTX_EMITS).value
        wall = ctypes.c_uint64.from_address(ctx_at + CTX_WALL).value
        stride = self.layout.stride
        for i in range(n):
            state = (ctypes.c_uint8 * stride).from_address(states + slots[i] * stride)
            raw = (ctypes.c_uint8 * 32).from_address(signals + order[i] * 32)
            kind = ctypes.c_uint16.from_address(signals + order[i] * 32).value
            undo, emitted = bytes(state), ctx[CTX_EMIT_N]

            def emit(kind, key, value, aux=0, time=0, at=order[i]):
                if ctx[CTX_EMIT_N] == ctx[CTX_EMIT_CAP]:
                    raise Full
                row = np.zeros(1, np.dtype([("signal", RAW), ("cause", "u4"), ("reserved", "u4")]))
                row[0] = ((kind.number, 0, bits(aux, kind.aux), key, time, bits(value, kind.value)), at, 0)
                ctypes.memmove(emits_at + ctx[CTX_EMIT_N] * EMIT_BYTES, row.tobytes(), EMIT_BYTES)
                ctx[CTX_EMIT_N] += 1

            record = np.frombuffer(state, self.layout.dtype, 1)[0]
            signal = np.frombuffer(raw, self.dtypes[kind], 1)[0]
            try:
                self.function(record, signal, emit, wall)
            except Exception as error:  # noqa: BLE001
                ctypes.memmove(state, undo, stride)
                ctx[CTX_EMIT_N] = emitted
                ctx[CTX_STATUS] = 1 if isinstance(error, Full) else 2
                ctx[CTX_ERROR] = 0 if isinstance(error, Full) else int(error.args[0])
                return i
        ctx[CTX_STATUS] = 0
        return n


def make_app(kinds, actors, name="test"):
    return SimpleNamespace(name=name, kinds=tuple(kinds), actors=tuple(actors))


TRADE = Kind("trade", 1, "f8", "u4")
ALERT = Kind("alert", 2, "f8", "u4")
COUNT = Kind("count", 3, "i8", "i4")


def vwap(state, signal, emit, wall):
    state["notional"] += signal["value"] * signal["aux"]
    state["volume"] += signal["aux"]
    if state["last"] > 0 and signal["value"] > 1.05 * state["last"]:
        emit(ALERT, signal["key"], signal["value"], time=signal["time"])
    state["last"] = signal["value"]


def vwap_app(function=vwap, **settings):
    state = {"notional": "f8", "volume": "f8", "last": "f8"}
    return make_app((TRADE, ALERT, COUNT), (CActor("vwap", function, (TRADE,), state, (ALERT,), **settings),))
