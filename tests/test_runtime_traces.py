"""A frame that carries a trace is told of from ingest to emit, to a real collector; others cost one look."""

import asyncio
import time

import numpy as np

import bitactor as ba
from bitactor.protocol.frames import encode_frame
from tests.collector import collector
from tests.test_runtime_core import KINDS, Session, serving, settings_of

__all__ = ["collector"]  # a fixture

app = ba.App("echo")
tick = app.kind("tick", 1)
echo = app.kind("echo", 2)


@app.actor(tick, state={"n": "u8"})
def count(state, signal, emit):
    state.n += 1
    if signal.value > 0:
        emit(echo, signal.key, signal.value)


def signals(values):
    return ba.make_signals(tick, key=np.arange(len(values), dtype="u8"), value=np.array(values, "f8"), time=1)


def admit(session, values, sequence, trace):
    producer = session.producer
    frame = encode_frame(signals(values), producer=producer.id, sequence=sequence, epoch=producer.epoch, trace=trace)
    return session.core.admission.admit(producer, memoryview(frame), KINDS)


def run(settings, body):
    async def served():
        async with serving(settings, app) as core:
            session = await Session(core, "p").open()
            await body(session)

    asyncio.run(served())


def test_a_traced_frame_is_one_trace_from_ingest_over_log_and_engine_to_emit(tmp_path, collector):
    settings = settings_of(tmp_path, telemetry__otlp_endpoint=collector.url)
    loud, quiet = bytes(range(1, 25)), bytes(range(101, 125))

    async def body(session):
        admit(session, [1, 0, 1], 0, loud)
        admit(session, [0], 3, b"")
        await session.acked(4)
        admit(session, [0, 0], 4, quiet)
        await session.acked(6)

    begin = time.time_ns()
    run(settings, body)
    end = time.time_ns()
    traces = collector.traces()
    first, second = traces.pop(loud[:16]), traces.pop(quiet[:16])
    assert set(first) == {"ingest", "log append", "engine apply", "emit"}
    assert set(second) == {"ingest", "log append", "engine apply"}
    records = sorted((spans["record"] for spans in traces.values()), key=lambda span: span.start_time_unix_nano)
    figures = [{a.key.rpartition(".")[2]: a.value.int_value for a in record.attributes} for record in records]
    assert figures == [
        {"sequence": figures[0]["sequence"], "position": 0, "signals": 4, "outputs": 2},
        {"sequence": figures[0]["sequence"] + 1, "position": 4, "signals": 2, "outputs": 0},
    ]
    for spans, record in ((first, records[0]), (second, records[1])):
        assert [link.span_id for link in record.links] == [spans["ingest"].span_id]
        times = [begin]
        for name in ("ingest", "log append", "engine apply", "emit"):
            if name in spans:
                times += [spans[name].start_time_unix_nano, spans[name].end_time_unix_nano]
        assert times == sorted(times) and times[-1] <= end
    assert first["ingest"].parent_span_id == loud[16:]


def test_frames_sent_again_are_not_traced_twice_and_a_service_without_endpoint_traces_nothing(tmp_path, collector):
    trace = bytes(range(1, 25))

    async def body(session):
        admit(session, [1], 0, trace)
        assert admit(session, [1], 0, trace) == 0
        await session.acked(1)
        assert session.core.traces is None or admit(session, [1], 0, trace) == 0

    run(settings_of(tmp_path / "off"), body)
    assert collector.requests == []
    run(settings_of(tmp_path / "on", telemetry__otlp_endpoint=collector.url), body)
    assert len(collector.traces()) == 2
