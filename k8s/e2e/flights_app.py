"""The app of the end-to-end check: the actors of examples/flights.py, and readings as in the chart's example."""

import bitactor as ba

LATE_MINUTES = 15

app = ba.App("flights")
carrier_departed = app.kind("carrier_departed", 1, value="f8")
carrier_cancelled = app.kind("carrier_cancelled", 2)
aircraft_departed = app.kind("aircraft_departed", 3, value="f8")
aircraft_cancelled = app.kind("aircraft_cancelled", 4)
reading = app.kind("reading", 5, value="f8")

STATE = {
    "departed": "u8",
    "cancelled": "u8",
    "late": "u8",
    "delay_sum": "f8",
    "delay_max": ba.field("f8", default=float("-inf")),
}


def delays(state, signal):
    """Count a flight."""
    if signal.kind == carrier_cancelled or signal.kind == aircraft_cancelled:
        state.cancelled += 1
        return
    state.departed += 1
    state.delay_sum += signal.value
    state.delay_max = max(state.delay_max, signal.value)
    if signal.value > LATE_MINUTES:
        state.late += 1


by_carrier = app.actor(carrier_departed, carrier_cancelled, state=STATE, name="by_carrier")(delays)
by_aircraft = app.actor(aircraft_departed, aircraft_cancelled, state=STATE, name="by_aircraft")(delays)


@app.actor(reading, state={"count": "u8", "total": "f8"})
def readings(state, signal):
    """Count and sum a key's readings."""
    state.count += 1
    state.total += signal.value
