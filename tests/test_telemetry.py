"""Log lines and traces: what they say and what they never say; a real collector over HTTP takes the spans."""

import io
import json
import logging
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from bitactor import SIGNAL_DTYPE, encode_frame, telemetry
from bitactor.config import Settings, Telemetry
from bitactor.telemetry.logs import as_json_line, as_text_line
from bitactor.telemetry.repeats import Repeats
from tests.collector import collector

__all__ = ["collector"]  # a fixture


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def json_log(level="debug"):
    stream = io.StringIO()
    telemetry.setup(level, "json", stream=stream)
    return stream


def test_a_line_is_an_object_with_time_level_logger_event_and_fields():
    stream = json_log()
    telemetry.get_logger("bitactor.x").info("opened", peer="1.2.3.4:5", count=3, ratio=float("inf"), none=None)
    (line,) = lines(stream)
    assert time.strptime(line.pop("ts")[:19], "%Y-%m-%dT%H:%M:%S")
    assert line == {
        "level": "info",
        "logger": "bitactor.x",
        "event": "opened",
        "peer": "1.2.3.4:5",
        "count": 3,
        "ratio": "inf",
        "none": None,
    }


def test_lines_of_uvicorn_asyncio_warnings_and_ended_threads_come_out_in_the_same_form():
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.addHandler(logging.StreamHandler(io.StringIO()))
    stream = json_log()
    uvicorn.warning("port %d", 8080)
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("asyncio").error("slow callback")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    thread = threading.Thread(target=lambda: 1 / 0, name="writer")
    thread.start()
    thread.join()
    found = lines(stream)
    assert [line["logger"] for line in found] == [
        "uvicorn.error",
        "uvicorn.access",
        "asyncio",
        "py.warnings",
        "bitactor",
    ]
    assert found[0]["event"] == "port 8080"
    assert found[4]["thread"] == "writer" and found[4]["error"] == "ZeroDivisionError: division by zero"
    assert "lambda" in found[4]["traceback"]


def test_what_a_line_of_the_standard_logging_has_beside_its_message_is_a_field():
    stream = json_log()
    logging.getLogger("bitactor.x").info("recovered %d", 3, extra={"position": 7, "token": SECRET})
    (line,) = lines(stream)
    del line["ts"]
    expected = {"level": "info", "logger": "bitactor.x", "event": "recovered 3", "position": 7, "token": "(not shown)"}
    assert line == expected


def test_the_level_says_what_is_written_and_requests_are_written_for_debug_only():
    stream = json_log("info")
    log = telemetry.get_logger("bitactor.x")
    log.debug("a")
    log.info("b")
    logging.getLogger("uvicorn.access").info("GET /")
    assert [line["event"] for line in lines(stream)] == ["b"]


SECRET = "s3cr3t-Value"


@pytest.mark.parametrize("form", [as_json_line, as_text_line])
@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("x", {"token": SECRET}),
        ("x", {"auth_token": SECRET, "password": SECRET, "Authorization": f"Bearer {SECRET}"}),
        ("x", {"private_key": SECRET, "otlp_headers": Settings(telemetry={"otlp_headers": SECRET}).telemetry}),
        ("x", {"headers": {"authorization": SECRET, "cookie": SECRET}}),
        ("x", {"request": f"GET /?a=1&token={SECRET}&b=2"}),
        ("x", {"error": ValueError(f"Authorization: Bearer {SECRET}")}),
        ("x", {"data": SECRET.encode(), "view": memoryview(SECRET.encode())}),
        (f"got bearer {SECRET}", {}),
        ("x", {"traceback": f"password = '{SECRET}'"}),
    ],
)
def test_secrets_are_never_written(form, event, fields):
    line = form(0.0, "info", "bitactor", event, fields)
    assert SECRET not in line
    assert "x" in line or "bearer (not shown)" in line


def test_names_of_files_with_secrets_are_written_because_they_help():
    assert "/run/token" in as_json_line(0.0, "info", "b", "x", {"token_file": "/run/token"})


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31mred", "a\r\x00", "a\u2028b"])
def test_what_a_peer_writes_cannot_forge_lines_or_drive_a_terminal(text):
    for form in (as_json_line, as_text_line):
        line = form(0.0, "info", "bitactor", "x", {"peer": text})
        assert len(line.split("\n")) == 1 and "\x1b" not in line and "\x00" not in line
    assert json.loads(as_json_line(0.0, "info", "b", "x", {"peer": text}))["peer"] == text


def test_a_value_without_end_is_cut_and_a_field_does_not_take_the_place_of_the_event():
    line = json.loads(as_json_line(0.0, "info", "b", "x", {"text": "y" * 100_000, "event": "z", "level": 1}))
    assert len(line["text"]) < 8300 and "100000 characters" in line["text"]
    assert (line["event"], line["event_"], line["level"], line["level_"]) == ("x", "z", "info", 1)


def test_a_line_for_people_has_time_level_event_fields_and_logger():
    told = as_text_line(1.5, "warning", "bitactor.log", "log is slow", {"seconds": 0.5, "path": "a b", "n": [1, 2]})
    assert told == '00:00:01.500 warning log is slow seconds=0.5 path="a b" n="[1, 2]" [bitactor.log]'.replace(
        '"[1, 2]"', "[1, 2]"
    )


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_repeats_are_held_back_and_their_number_goes_out_with_the_next_or_when_the_window_is_over():
    clock = Clock()
    repeats = Repeats(burst=2, window_s=10, clock=clock)
    key, other = ("l", 30, "e"), ("l", 30, "f")
    assert [repeats.admit(key) for _ in range(5)] == [0, 0, None, None, None]
    assert repeats.admit(other) == 0
    clock.now = 10.0
    assert repeats.admit(key) == 3
    assert list(repeats.over()) == []
    assert [repeats.admit(key) for _ in range(3)] == [0, None, None]
    clock.now = 25.0
    assert list(repeats.over()) == [(key, 2)]
    assert repeats.admit(key) == 0


def test_the_memory_for_repeats_is_bounded_whatever_events_there_are():
    repeats = Repeats(burst=1, events_max=10, clock=Clock())
    told = []
    for i in range(1000):
        repeats.admit(("l", 30, f"e{i}"))
        repeats.admit(("l", 30, f"e{i}"))
        told += repeats.over()
        assert len(repeats._windows) <= 10
    told += repeats.over(all=True)
    assert told == [(("l", 30, f"e{i}"), 1) for i in range(1000)]


def test_every_repeated_line_is_either_written_or_counted_at_the_latest_at_the_end():
    stream = json_log()
    log = telemetry.get_logger("bitactor.x")
    threads = [threading.Thread(target=lambda: [log.error("full", i=i) for i in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logging.getLogger().handlers[0].close()
    found = lines(stream)
    assert len(found) < 20
    assert sum(line.get("repeats", 1) for line in found) == 4000


def test_a_stream_that_has_gone_does_not_disturb_who_logs():
    code = (
        "import os, sys\nfrom bitactor import telemetry\ntelemetry.setup('info', 'json')\n"
        "os.close(2)\ntelemetry.get_logger('x').info('a')\nprint('on')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, "on\n")


def test_logging_imports_neither_pydantic_nor_opentelemetry_nor_numpy():
    code = (
        "import sys\nimport bitactor.telemetry\n"
        "print(sorted({'pydantic', 'opentelemetry', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "[]\n"


# Traces.


def frame(trace=b"", count=3):
    return memoryview(encode_frame(np.zeros(count, SIGNAL_DTYPE), producer=1, sequence=0, trace=trace))


TIMES = telemetry.RecordTimes(5, 100, 9, (2000, 3000), (3000, 4000), (4000, 5000), 2)


def test_a_sampled_frame_is_one_trace_from_the_clients_span_to_emit_and_its_record_is_linked_both_ways(collector):
    tracing = telemetry.start_tracing(
        Telemetry(otlp_endpoint=collector.url, otlp_headers="x-key=a%20b", sample_ratio=0)
    )
    first, second = bytes(range(1, 25)), bytes(range(101, 125))
    marks = [tracing.frame(frame(trace)) for trace in (first, second)]
    marks = [mark.admitted("p", 7, 3) for mark in marks]
    tracing.record(marks, TIMES)
    tracing.close()
    path, headers, _ = collector.requests[0]
    assert path == "/v1/traces" and {k.lower(): v for k, v in headers.items()}["x-key"] == "a b"
    spans = collector.spans()
    (record,) = [span for span in spans if span.name == "record"]
    assert not record.parent_span_id
    for trace in (first, second):
        mine = {span.name: span for span in spans if span.trace_id == trace[:16]}
        assert set(mine) == {"ingest", "log append", "engine apply", "emit"}
        ingest = mine["ingest"]
        assert ingest.parent_span_id == trace[16:]
        assert {a.key: a.value.string_value or a.value.int_value for a in ingest.attributes} == {
            "bitactor.producer": "p",
            "bitactor.frame.sequence": 7,
            "bitactor.frame.signals": 3,
        }
        for name, (begin, end) in (
            ("log append", (2000, 3000)),
            ("engine apply", (3000, 4000)),
            ("emit", (4000, 5000)),
        ):
            assert mine[name].parent_span_id == ingest.span_id
            assert (mine[name].start_time_unix_nano, mine[name].end_time_unix_nano) == (begin, end)
            assert [link.span_id for link in mine[name].links] == [record.span_id]
        assert ingest.span_id in [link.span_id for link in record.links]
    assert len(spans) == 9


def test_frames_without_a_trace_are_drawn_by_the_ratio_and_begin_one(collector):
    tracing = telemetry.start_tracing(Telemetry(otlp_endpoint=collector.url, sample_ratio=0))
    assert all(tracing.frame(frame()) is None for _ in range(100))
    tracing.close()
    tracing = telemetry.start_tracing(Telemetry(otlp_endpoint=collector.url, sample_ratio=1))
    tracing.record([tracing.frame(frame()).admitted("p", 0, 3)], TIMES)
    tracing.close()
    (ingest,) = [span for span in collector.spans() if span.name == "ingest"]
    assert not ingest.parent_span_id and any(ingest.trace_id)


def test_a_trace_without_a_span_is_not_followed_and_a_record_traces_a_bounded_number_of_frames(collector):
    tracing = telemetry.start_tracing(Telemetry(otlp_endpoint=collector.url, sample_ratio=0))
    tracing.record([tracing.frame(frame(bytes(range(1, 17)) + bytes(8))).admitted("p", 0, 3)], TIMES)
    tracing.record([tracing.frame(frame(bytes(range(1, 25)))).admitted("p", i, 1) for i in range(100)], TIMES)
    tracing.close()
    ingests = [span for span in collector.spans() if span.name == "ingest"]
    assert [span.parent_span_id for span in ingests] == [b""] + [bytes(range(17, 25))] * telemetry.MARKS_MAX


def test_the_clients_span_is_a_child_of_the_callers_and_its_context_goes_into_the_frame(collector):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    seen = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(seen))
    tracer = provider.get_tracer("application")
    assert telemetry.sending_context() is None
    with tracer.start_as_current_span("one"):
        one = telemetry.sending_context()
    with tracer.start_as_current_span("two"):
        two = telemetry.sending_context()
    sent = telemetry.send_span([one, two, one], tracer=tracer, producer="p", sequence=4, signals=2, begin_ns=1000)
    assert sent.trace[:16] == one.trace_id.to_bytes(16, "big")
    sent.end(ConnectionError("gone"))
    span = seen.get_finished_spans()[-1]
    assert span.name == "bitactor send" and span.parent.span_id == one.span_id and span.start_time == 1000
    assert [link.context.span_id for link in span.links] == [two.span_id]
    assert span.status.description == "ConnectionError: gone"
    assert sent.trace[16:] == span.context.span_id.to_bytes(8, "big")
    provider.shutdown()


def test_a_collector_that_is_not_there_costs_nothing_but_a_counted_log_line():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    stream = json_log("warning")
    tracing = telemetry.start_tracing(Telemetry(otlp_endpoint="http://127.0.0.1:9", sample_ratio=1))
    begin = time.perf_counter()
    tracing.record([tracing.frame(frame()).admitted("p", 0, 3)], TIMES)
    assert time.perf_counter() - begin < 1
    tracing.close()
    assert any("opentelemetry" in line["logger"] for line in lines(stream))


def test_without_an_endpoint_or_the_extra_nothing_is_imported_and_the_lack_is_told_in_a_line():
    assert telemetry.start_tracing(Telemetry()) is None
    code = """
import sys
for name in ("opentelemetry", "opentelemetry.trace", "opentelemetry.exporter"):
    sys.modules[name] = None
from bitactor import telemetry
from bitactor.config import Telemetry
assert telemetry.start_tracing(Telemetry()) is None
assert telemetry.sending_context() is None
try:
    telemetry.start_tracing(Telemetry(otlp_endpoint="http://127.0.0.1:4318"))
except telemetry.TelemetryError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == ""
    assert result.stdout == "telemetry.otlp_endpoint needs more packages: pip install 'bitactor[otel]'\n"
