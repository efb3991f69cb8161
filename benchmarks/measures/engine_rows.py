"""The engine's other figures: `--row dispatch|feedback|send`, one a process, each with an exact check."""

import argparse
import statistics
import time

import numpy as np

import bitactor as ba
from benchmarks import measure

KEYS = 1_000


def timed_batches(engine: ba.Engine, signals: np.ndarray, passes: int) -> list[float]:
    """Seconds of each pass, after one that warms."""
    seconds = []
    for _ in range(passes + 1):
        begin = time.perf_counter()
        engine.send_batch(signals)
        engine.flush()
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def conserved(engine: ba.Engine) -> None:
    """AssertionError unless the engine's counts balance."""
    counts = engine.statistics()
    if not counts.conserved:
        raise AssertionError(f"the counts do not balance: {counts}")


def dispatch(events: int, passes: int) -> None:
    """8 kinds in random order, a compiled handler each: ticks a signal, all work of an inline engine included."""
    app = ba.App("dispatch")
    kinds = [app.kind(f"kind{number}", number, value="f8", aux="u4") for number in range(1, 9)]
    actors = []
    for kind in kinds:

        @app.actor(kind, state={"count": "u8"}, name=f"count_{kind.name}")
        def count(state, signal, emit):  # type: ignore[no-untyped-def]
            state.count += 1

        actors.append(count)
    rng = np.random.default_rng(1)
    signals = np.zeros(events, ba.signal_dtype("f8", "u4"))
    signals["kind"] = rng.integers(1, 9, events)
    signals["key"] = rng.integers(1, 9, events)
    with ba.Engine(app, shards=0) as engine:
        seconds = timed_batches(engine, signals, passes)
        for kind, actor in zip(kinds, actors, strict=True):
            want = int((signals["kind"] == kind.number).sum()) * (passes + 1)
            got = int(engine.table(actor)["count"].sum())
            if got != want:
                raise AssertionError(f"{kind.name}: {got} handled, {want} sent")
        counts = engine.statistics()
        hz = counts.actors[0].ticks.hz
        own = statistics.fmean(actor.ticks.mean for actor in counts.actors)
    measure.report("whole engine", statistics.median(seconds) / events * hz, "ticks a signal", exact=True)
    measure.report("handler calls", own, "ticks a signal", exact=True)


def feedback(events: int, passes: int) -> None:
    """Every signal emits once to another key, half of them on the other shard; 2 shards, frames of 8,192."""
    app = ba.App("feedback")
    ping = app.kind("ping", 1, value="f8", aux="u4")
    pong = app.kind("pong", 2, value="f8", aux="u4")

    @app.actor(ping, state={"sent": "u8"})
    def forward(state, signal, emit):  # type: ignore[no-untyped-def]
        state.sent += 1
        emit(pong, signal.key * 7 + 1, signal.value)

    @app.actor(pong, state={"got": "u8"})
    def receive(state, signal, emit):  # type: ignore[no-untyped-def]
        state.got += 1

    signals = np.zeros(events, ba.signal_dtype("f8", "u4"))
    signals["kind"], signals["key"] = 1, np.random.default_rng(1).integers(1, KEYS + 1, events)
    with ba.Engine(app, shards=2) as engine:
        seconds = timed_batches(engine, signals, passes)
        want = events * (passes + 1)
        got = int(engine.table(receive)["got"].sum())
        if got != want:
            raise AssertionError(f"{got} emits handled, {want} made")
        conserved(engine)
    measure.report("", events / statistics.median(seconds) / 1e6, "M/s", exact=True)


def send(events: int, passes: int) -> None:
    """`engine.send`, one signal a call."""
    app = ba.App("send")
    tick = app.kind("tick", 1, value="f8", aux="u4")

    @app.actor(tick, state={"total": "f8"})
    def add(state, signal, emit):  # type: ignore[no-untyped-def]
        state.total += signal.value

    seconds = []
    with ba.Engine(app, shards=1) as engine:
        one = engine.send
        for _ in range(passes):
            begin = time.perf_counter()
            for _ in range(events):
                one(tick, 1, 2.0)
            engine.flush()
            seconds.append(time.perf_counter() - begin)
        state = engine.state(add, 1)
        if state is None or state.total != 2.0 * events * passes:
            raise AssertionError(f"{state}, expected a total of {2.0 * events * passes}")
        conserved(engine)
    measure.report("", events / statistics.median(seconds) / 1e6, "M/s", exact=True)


def main() -> None:
    """Parse and run one row."""
    rows = {"dispatch": dispatch, "feedback": feedback, "send": send}
    parser = argparse.ArgumentParser()
    parser.add_argument("--row", choices=rows, required=True)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    rows[options.row](options.events, options.passes)


if __name__ == "__main__":
    main()
