"""One trace from an application's span through the client, TLS, a real service, its log and engine, to its outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.collector import collector

__all__ = ["collector"]  # a fixture

APP = Path(__file__).parent / "service_app.py"
CLIENT = """
import asyncio, sys
import numpy as np
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
import bitactor as ba

collector, address, directory, kind = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(collector + "/v1/traces")))
trace.set_tracer_provider(provider)
given = {"producer": kind, "token_file": directory + "/dev/token", "ca_file": directory + "/dev/ca.pem"}
batch = ba.make_signals(1, 7, np.array([1.0, 2.0]), time=1, n=2)  # twice the price: an alert


def send_sync():
    with ba.Client(address, **given) as client:
        client.send_batch(batch)
        with trace.get_tracer("app").start_as_current_span("order"):
            client.send_batch(batch)
        client.send_batch(batch)


async def send_async():
    async with ba.AsyncClient(address, **given) as client:
        await client.send_batch(batch)
        with trace.get_tracer("app").start_as_current_span("order"):
            await client.send_batch(batch)
        await client.send_batch(batch)


send_sync() if kind == "threads" else asyncio.run(send_async())
provider.shutdown()
"""


@pytest.fixture
def service(tmp_path, collector):
    """A running service that traces: (address, data directory)."""
    serving = subprocess.Popen(
        [
            *(sys.executable, "-m", "bitactor", "serve", str(APP), "--data-dir", str(tmp_path)),
            *("--ingest-port", "0", "--admin-port", "0", "--engine-shards", "1"),
            *("--telemetry-otlp-endpoint", collector.url, "--telemetry-sample-ratio", "0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BITACTOR_TELEMETRY__OTLP_HEADERS": "x-key=deep-secret"},
    )
    with serving:
        line = serving.stdout.readline()
        assert line, serving.stderr.read()
        yield json.loads(line)["ingest"][0], tmp_path
        serving.terminate()
        out, err = serving.communicate(timeout=60)
        assert serving.returncode == 0, err
        token = (tmp_path / "dev" / "token").read_text().strip()
        assert "deep-secret" not in out + err and token not in out + err


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_an_applications_span_becomes_one_trace_through_client_service_log_engine_and_emit(
    kind, service, collector, request
):
    address, directory = service
    sent = subprocess.run(
        [sys.executable, "-c", CLIENT, collector.url, address, str(directory), kind],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert sent.returncode == 0, sent.stderr
    deadline = 100
    while deadline and not any("emit" in spans for spans in collector.traces().values()):
        deadline -= 1
        collector.wait(0.2)
    traces = collector.traces()
    (mine,) = [spans for spans in traces.values() if "order" in spans]
    assert set(mine) == {"order", "bitactor send", "ingest", "log append", "engine apply", "emit"}
    parents = {"bitactor send": "order", "ingest": "bitactor send"}
    parents |= dict.fromkeys(("log append", "engine apply", "emit"), "ingest")
    for child, parent in parents.items():
        assert mine[child].parent_span_id == mine[parent].span_id
        assert mine[child].start_time_unix_nano >= mine[parent].start_time_unix_nano
    assert mine["bitactor send"].end_time_unix_nano >= mine["engine apply"].end_time_unix_nano  # it ends with the ack
    assert not mine["bitactor send"].status.code
    others = [spans for spans in traces.values() if spans is not mine]
    assert [set(spans) for spans in others] == [{"record"}]  # the batches without a span were not traced
    record = others[0]["record"]  # written for several frames at once: a trace of its own, linked both ways
    assert [(link.trace_id, link.span_id) for link in record.links] == [
        (mine["order"].trace_id, mine["ingest"].span_id)
    ]
    for name in ("log append", "engine apply"):
        assert [link.span_id for link in mine[name].links] == [record.span_id]
