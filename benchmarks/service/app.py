"""The app that is served in the benchmarks: VWAP, a state of 24 bytes a key."""

import bitactor as ba

app = ba.App("bench")
trade = app.kind("trade", 1, value="f8", aux="u4")


@app.actor(trade, state={"notional": "f8", "volume": "f8", "last": "f8"})
def vwap(state, signal):
    state.notional += signal.value * signal.aux
    state.volume += signal.aux
    state.last = signal.value
