"""The app that the chart serves until it is given another: how many readings each key had, and of what size.

Give your own with app.files, or as the chart's README says of app.
"""

import bitactor as ba

app = ba.App("example")
reading = app.kind("reading", 1, value="f8")


@app.actor(reading, state={"count": "u8", "total": "f8", "smallest": "f8", "largest": "f8"})
def readings(state, signal):
    """Count, sum and bounds of a key's readings."""
    if state.count == 0 or signal.value < state.smallest:
        state.smallest = signal.value
    if state.count == 0 or signal.value > state.largest:
        state.largest = signal.value
    state.count += 1
    state.total += signal.value
