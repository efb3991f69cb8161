"""An app of small capacity: a signal costs some microseconds, so that ten times as many can be offered anywhere."""

import bitactor as ba

app = ba.App("slow")
trade = app.kind("trade", 1, value="f8", aux="u4")


@app.actor(trade, state={"volume": "u8", "noise": "f8"})
def vwap(state, signal):
    state.volume += signal.aux
    for _ in range(500):
        state.noise = 0.5 * state.noise + signal.value
