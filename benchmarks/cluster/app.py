"""What the replicas serve: count and sum of each key."""

import bitactor as ba

app = ba.App("bench")
reading = app.kind("reading", 1, value="f8", aux="u4")


@app.actor(reading, state={"count": "u8", "sum": "f8"})
def sensor(state, signal):
    state.count += 1
    state.sum += signal.value
