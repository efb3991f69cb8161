"""What a process tells about itself while it runs: log lines (`get_logger`, `setup`) and traces (`start_tracing`).

Imports neither pydantic nor opentelemetry. Metrics are read by bitactor.admin from statistics.
"""

from bitactor.telemetry.logs import Logger as Logger
from bitactor.telemetry.logs import get_logger as get_logger
from bitactor.telemetry.logs import setup as setup
from bitactor.telemetry.traces import MARKS_MAX as MARKS_MAX
from bitactor.telemetry.traces import FrameMark as FrameMark
from bitactor.telemetry.traces import RecordTimes as RecordTimes
from bitactor.telemetry.traces import SendSpan as SendSpan
from bitactor.telemetry.traces import TelemetryError as TelemetryError
from bitactor.telemetry.traces import Tracing as Tracing
from bitactor.telemetry.traces import send_span as send_span
from bitactor.telemetry.traces import sending_context as sending_context
from bitactor.telemetry.traces import start_tracing as start_tracing
