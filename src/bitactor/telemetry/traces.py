"""Traces of sampled frames through OpenTelemetry: client send, ingest, log append, engine apply, emit.

A frame is sampled when it carries a trace (24 bytes: trace id 16, span id 8, of the client's span) or is drawn by the
ratio. Its trace has a span for each stage. The record that it went into, with everything else in it, is a trace of its
own, linked to the frames' spans and they to it. Spans are made after the fact from times that are noted on the way and
sent by a thread of the SDK: the data path pays one check for a frame and nothing for a signal. `0 <= marks of a
record <= MARKS_MAX`; frames beyond that are not traced.

Where nothing is to be traced there is no Tracing (`start_tracing` gives None), and opentelemetry is not imported.
"""

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from bitactor import __version__

if TYPE_CHECKING:
    from bitactor.config import Telemetry

NO_TRACE: Final = bytes(24)
MARKS_MAX: Final = 32
FLUSH_MS: Final = 3000
_TRACE_AT: Final = slice(40, 64)  # of a frame's header


class TelemetryError(RuntimeError):
    """Telemetry was asked for and cannot be had."""


@dataclass(slots=True)
class FrameMark:
    """A sampled frame on its way, made by Tracing.frame at admission. Times are ns since the Unix epoch."""

    trace: bytes
    begin_ns: int
    end_ns: int = 0
    producer: str = ""
    sequence: int = 0
    signals: int = 0

    def admitted(self, producer: str, sequence: int, signals: int) -> "FrameMark":
        """Note that admission is over: whose frame it is, its first sequence, how many of its signals were new."""
        self.end_ns = time.time_ns()
        self.producer, self.sequence, self.signals = producer, sequence, signals
        return self


@dataclass(frozen=True, slots=True)
class RecordTimes:
    """What happened to a record, each as (begin, end) in ns since the Unix epoch."""

    sequence: int
    position: int
    signals: int
    append_ns: tuple[int, int]
    apply_ns: tuple[int, int]
    emit_ns: tuple[int, int] | None = None  # None: nothing was emitted outward
    outputs: int = 0


class Tracing:
    """Makes and sends the server's spans. `frame` on the loop's thread, `record` on one thread, `close` at the end."""

    def __init__(self, provider: Any, sample_ratio: float) -> None:
        """provider: an OpenTelemetry SDK TracerProvider that samples what it is given."""
        self._provider: Final = provider
        self._tracer: Final = provider.get_tracer("bitactor", __version__)
        self._ratio: Final = sample_ratio

    def frame(self, frame: memoryview) -> FrameMark | None:
        """The mark of a frame that is sampled, else None. Call when the whole message is there."""
        trace = bytes(frame[_TRACE_AT])
        if trace == NO_TRACE and random.random() >= self._ratio:  # noqa: S311
            return None
        return FrameMark(trace, time.time_ns())

    def record(self, marks: Sequence[FrameMark], times: RecordTimes) -> None:
        """Make the spans of a record's sampled frames, once it is durable and applied."""
        from opentelemetry.trace import Link, SpanKind

        ingests = [self._ingest(mark) for mark in marks[:MARKS_MAX]]
        end_ns = max(times.apply_ns[1], times.emit_ns[1] if times.emit_ns else 0)
        record = self._tracer.start_span(
            "record",
            context=_root(),
            kind=SpanKind.INTERNAL,
            links=[Link(span.get_span_context()) for span in ingests],
            attributes={
                "bitactor.record.sequence": times.sequence,
                "bitactor.record.position": times.position,
                "bitactor.record.signals": times.signals,
                "bitactor.record.outputs": times.outputs,
            },
            start_time=times.append_ns[0],
        )
        stages = [("log append", times.append_ns), ("engine apply", times.apply_ns)]
        if times.emit_ns is not None:
            stages.append(("emit", times.emit_ns))
        links = [Link(record.get_span_context())]
        for ingest in ingests:
            parent = _under(ingest)
            for name, (begin, end) in stages:
                self._tracer.start_span(name, context=parent, links=links, start_time=begin).end(end)
        record.end(end_ns)

    def _ingest(self, mark: FrameMark) -> Any:
        from opentelemetry.trace import SpanKind

        span = self._tracer.start_span(
            "ingest",
            context=_remote(mark.trace),
            kind=SpanKind.SERVER,
            attributes={
                "bitactor.producer": mark.producer,
                "bitactor.frame.sequence": mark.sequence,
                "bitactor.frame.signals": mark.signals,
            },
            start_time=mark.begin_ns,
        )
        span.end(mark.end_ns)
        return span

    def close(self) -> None:
        """Send what is left, for at most FLUSH_MS, and stop. Waits; not on the loop."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


def start_tracing(settings: "Telemetry") -> Tracing | None:
    """Tracing to the endpoint of the settings; None without one. TelemetryError: the extra `otel` is not installed."""
    if settings.otlp_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError as error:
        raise TelemetryError("telemetry.otlp_endpoint needs more packages: pip install 'bitactor[otel]'") from error
    url = settings.otlp_endpoint.rstrip("/")
    secret = settings.otlp_headers
    exporter = OTLPSpanExporter(
        endpoint=url if url.endswith("/v1/traces") else f"{url}/v1/traces",
        headers=_headers(secret.get_secret_value()) if secret is not None else None,
        timeout=5,
    )
    provider = TracerProvider(
        resource=Resource.create({"service.name": "bitactor", "service.version": __version__}),
        sampler=ALWAYS_ON,  # who is sampled was decided at the frame
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, settings.sample_ratio)


def _headers(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs}


def _root() -> Any:
    from opentelemetry.context import Context

    return Context()


def _under(span: Any) -> Any:
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span, _root())


def _remote(trace: bytes) -> Any:
    """The context of the client's span that a frame carries; that of a new trace when it carries none."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    context = SpanContext(
        int.from_bytes(trace[:16], "big"), int.from_bytes(trace[16:], "big"), True, TraceFlags(TraceFlags.SAMPLED)
    )
    return _under(NonRecordingSpan(context)) if context.is_valid else _root()


# The client's side. It uses whatever OpenTelemetry the application has set up, and imports nothing by itself.


@dataclass(slots=True)
class SendSpan:
    """The span of a frame from its first send to its acknowledgement. trace: the 24 bytes for the frame."""

    trace: bytes
    _span: Any

    def end(self, error: BaseException | None = None) -> None:
        """It is acknowledged, or given up because of the error."""
        if error is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        self._span.end()


def sending_context() -> Any | None:
    """The caller's span context if it is being traced; None otherwise. Cheap when the application does not trace."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    return context if context.is_valid and context.trace_flags.sampled else None


def send_span(
    contexts: Sequence[Any], *, producer: str, sequence: int, signals: int, begin_ns: int, tracer: Any = None
) -> SendSpan:
    """Begin the span of a frame with signals of these contexts (one or more): child of the first, linked to others.

    begin_ns: when the first of its signals was sent, in ns since the Unix epoch. tracer: None for one of the provider
    that the application has set up. Any thread.
    """
    from opentelemetry import trace

    others = {(one.trace_id, one.span_id): one for one in contexts[1:]}
    others.pop((contexts[0].trace_id, contexts[0].span_id), None)
    tracer = trace.get_tracer("bitactor", __version__) if tracer is None else tracer
    span = tracer.start_span(
        "bitactor send",
        context=_under(trace.NonRecordingSpan(contexts[0])),
        kind=trace.SpanKind.PRODUCER,
        links=[trace.Link(one) for one in others.values()],
        attributes={
            "bitactor.producer": producer,
            "bitactor.frame.sequence": sequence,
            "bitactor.frame.signals": signals,
        },
        start_time=begin_ns,
    )
    context = span.get_span_context()
    return SendSpan(context.trace_id.to_bytes(16, "big") + context.span_id.to_bytes(8, "big"), span)
