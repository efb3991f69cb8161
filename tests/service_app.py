"""The app that the service's tests serve. BITACTOR_TEST_APP=2: a later version, with one more field of a state."""

import os

import bitactor as ba

VERSION = os.environ.get("BITACTOR_TEST_APP", "1")

app = ba.App("tested")
trade = app.kind("trade", 1, value="f8", aux="u4")
note = app.kind("note", 2, value="u8")
alert = app.kind("alert", 3, value="f8")
fed = app.kind("fed", 4, value="u8")

STATE = {"notional": "f8", "volume": "u8", "last": "f8"}
if VERSION == "2":
    STATE["trades"] = "u8"


@app.actor(trade, state=STATE)
def vwap(state, signal, emit):
    state.notional += signal.value * signal.aux
    state.volume += signal.aux
    if signal.value > 1.05 * state.last and state.last > 0:
        emit(alert, signal.key, signal.value)
    state.last = signal.value


@app.actor(note, state={"n": "u8", "seen": "u8"}, expire_after="1h", keys_max=6400)
def notes(state, signal, emit):
    state.n += 1
    state.seen = signal.value
    emit(fed, signal.key % 13, signal.value)


@app.actor(fed, state={"total": "u8"})
def totals(state, signal):
    state.total += signal.value
