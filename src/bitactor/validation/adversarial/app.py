"""The app that the suite serves and attacks: counts and sums a key, one emit each, so what it holds can be foretold."""

from typing import Any

import bitactor as ba

app = ba.App("adversarial")
trade = app.kind("trade", 1, value="u8", aux="u4")
quote = app.kind("quote", 2, value="u8")
heard = app.kind("heard", 3, value="u8")


@app.actor(trade, state={"n": "u8", "total": "u8", "last": "u8"}, keys_max=1 << 20)
def totals(state: Any, signal: Any, emit: Any) -> None:
    """Count and add up; tell readers each value."""
    state.n += 1
    state.total += signal.value
    state.last = signal.value
    emit(heard, signal.key, signal.value)


@app.actor(quote, state={"n": "u8"}, keys_max=6400)
def quotes(state: Any, signal: Any) -> None:  # noqa: ARG001 (its value does not matter)
    """Count, for no more than 6,400 keys."""
    state.n += 1
