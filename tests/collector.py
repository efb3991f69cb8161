"""An OpenTelemetry collector for tests: a real HTTP server that parses OTLP and keeps the spans."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Collector:
    """An OTLP/HTTP collector on a port of its own: keeps what it is sent."""

    def __init__(self):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        requests = self.requests = []
        changed = self.changed = threading.Condition()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                with changed:
                    requests.append((self.path, dict(self.headers), ExportTraceServiceRequest.FromString(body)))
                    changed.notify_all()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def spans(self):
        return [
            span
            for _, _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def wait(self, seconds):
        """Wait for the next request, at most so long."""
        with self.changed:
            self.changed.wait(seconds)

    def traces(self):
        """Trace id -> {name of a span: the span}; names are unique within these traces."""
        found = {}
        for span in self.spans():
            mine = found.setdefault(span.trace_id, {})
            assert span.name not in mine
            mine[span.name] = span
        return found


@pytest.fixture
def collector():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    made = Collector()
    yield made
    made.close()
