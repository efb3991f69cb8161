"""The app of the replicas' campaign: emits over lanes in a chain, outputs, and state that depends on the order."""

import bitactor as ba

SITES = 97

app = ba.App("replicated")
reading = app.kind("reading", 1, value="f8", aux="u4")  # key: the sensor; aux: its site
visit = app.kind("visit", 2, value="f8", aux="u4")  # key: the site
tally = app.kind("tally", 3, value="f8", aux="u4")  # key: the region
alert = app.kind("alert", 4, value="f8", aux="u4")  # leaves the app


@app.actor(reading, state={"count": "u8", "mean": "f8", "last": "f8"})
def sensor(state, signal, emit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A mean that forgets; each reading is told to its site, every eighth one of a sensor to whoever listens."""
    state.count += 1
    state.mean += 0.125 * (signal.value - state.mean)
    emit(visit, signal.aux, signal.value - state.last)
    if state.count % 8 == 0:
        emit(alert, signal.key, state.mean, signal.aux)
    state.last = signal.value


@app.actor(visit, state={"count": "u8", "mean": "f8"})
def site(state, signal, emit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The same of a site; every second visit is told to the site's region."""
    state.count += 1
    state.mean += 0.125 * (signal.value - state.mean)
    if state.count % 2 == 0:
        emit(tally, signal.key % 7, state.mean)


@app.actor(tally, state={"count": "u8", "sum": "f8"})
def region(state, signal):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What the sites told."""
    state.count += 1
    state.sum += signal.value
