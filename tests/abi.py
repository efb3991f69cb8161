"""Calls a compiled handler directly, as the engine does: batches, full emit buffers, raises. For tests."""

import ctypes
from typing import Any

import numpy as np

from bitactor.actors import Actor
from bitactor.actors.interpret import HANDLER_TYPE, Context

EMIT_DTYPE = np.dtype([("signal", "V32"), ("cause", "u4"), ("reserved", "u4")])


def call(
    actor: Actor, signals: np.ndarray, slots: np.ndarray, n_states: int, *, jit: bool, emit_cap: int = 4096
) -> Any:
    """Run a batch in order; give (states, emits, raised: list of (index, error), calls)."""
    handler = actor.compile(jit)
    function = ctypes.cast(handler.address, HANDLER_TYPE)
    states = np.frombuffer(bytearray(actor.layout.init * n_states), "u1")
    slots = np.ascontiguousarray(slots, "u4")
    order = np.arange(len(signals), dtype="u2")
    buffer = np.zeros(emit_cap, EMIT_DTYPE)
    emits, raised, at, calls = [], [], 0, 0
    while at < len(signals):
        ctx = Context(size=ctypes.sizeof(Context), status=255, emit_cap=emit_cap, emits=buffer.ctypes.data)
        done = function(
            ctypes.addressof(ctx),
            states.ctypes.data,
            slots[at:].ctypes.data,
            signals.ctypes.data,
            order[at:].ctypes.data,
            len(signals) - at,
        )
        calls += 1
        emits.append(buffer[: ctx.emit_n].copy())
        at += done
        if ctx.status == 2:
            raised.append((at, ctx.error))
            at += 1
        elif ctx.status == 1:
            assert done or ctx.emit_n, "no progress with an empty buffer"
        else:
            assert ctx.status == 0, f"status {ctx.status}"
            assert at == len(signals)
    return states, np.concatenate(emits) if emits else buffer[:0], raised, calls
