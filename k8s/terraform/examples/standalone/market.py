"""Trades and their volume, for each symbol."""

import bitactor as ba

app = ba.App("market")
trade = app.kind("trade", 1, value="f8", aux="u4")  # value: price, aux: size


@app.actor(trade, state={"trades": "u8", "volume": "u8", "notional": "f8"})
def volume(state, signal):
    """What was traded."""
    state.trades += 1
    state.volume += signal.aux
    state.notional += signal.value * signal.aux
