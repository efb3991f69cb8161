"""The app that campaigns serve when none is given: state in floats and whole numbers, emits outward and within."""

import bitactor as ba

app = ba.App("validated")
trade = app.kind("trade", 1, value="f8", aux="u4")
note = app.kind("note", 2, value="u8")
alert = app.kind("alert", 3, value="f8")
fed = app.kind("fed", 4, value="u8")


@app.actor(trade, state={"notional": "f8", "volume": "u8", "last": "f8"})
def vwap(state, signal, emit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Price weighted by volume; an alert when the price jumps."""
    state.notional += signal.value * signal.aux
    state.volume += signal.aux
    if signal.value > 1.05 * state.last and state.last > 0:
        emit(alert, signal.key, signal.value)
    state.last = signal.value


@app.actor(note, state={"n": "u8", "seen": "u8"}, expire_after="1h", keys_max=64000)
def notes(state, signal, emit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Counts, and feeds another actor."""
    state.n += 1
    state.seen = signal.value
    emit(fed, signal.key % 13, signal.value)


@app.actor(fed, state={"total": "u8"})
def totals(state, signal):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What the other actor fed it."""
    state.total += signal.value
