"""The app of `bitactor cluster demo`: readings of sensors, and how many there were at each site."""

import bitactor as ba

SITES = 97

app = ba.App("demo")
reading = app.kind("reading", 1, value="f8", aux="u4")  # key: the sensor; aux: its site
visit = app.kind("visit", 2, value="f8", aux="u4")  # key: the site


@app.actor(reading, state={"count": "u8", "sum": "f8", "highest": "f8"})
def sensor(state, signal, emit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count, sum and highest value of each sensor; each reading is told to its site, which lies in another lane."""
    state.count += 1
    state.sum += signal.value
    state.highest = max(state.highest, signal.value)
    emit(visit, signal.aux, signal.value)


@app.actor(visit, state={"count": "u8", "sum": "f8"})
def site(state, signal):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Count and sum of each site."""
    state.count += 1
    state.sum += signal.value
