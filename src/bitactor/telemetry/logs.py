"""Structured log lines: an event and fields, as JSON or for people, with repeats counted and secrets left out.

    _log = get_logger("bitactor.ingest")
    _log.warning("connection refused", peer=peer, reason="handshake_timeout")

The event is a constant text; what varies goes into fields, so that lines can be counted and found. Any thread. Lines
go through the standard library's logging, so those of uvicorn, asyncio and of apps come out in the same form. `setup`
is for the process's owner (a verb); without it, as in a library, warnings go where logging sends them.
"""

import json
import logging
import math
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO

from bitactor.telemetry.repeats import Repeats

_RESERVED: Final = frozenset({"ts", "level", "logger", "event", "repeats"})
# Names of fields whose values are not written, and what looks like a secret within texts.
_SECRET_NAME: Final = re.compile(r"token|secret|password|passwd|authorization|cookie|private|credential", re.IGNORECASE)
_NAME_OF_NO_SECRET: Final = re.compile(r"_(file|path|count|bytes)$")
_SECRET_TEXT: Final = re.compile(
    r"(?P<before>\b(?:bearer\s+|(?:token|password|secret|authorization)['\"]?\s*[=:]\s*['\"]?(?:bearer\s+)?))(?P<secret>[^\s&;,\"']+)",
    re.IGNORECASE,
)
_NEEDS_QUOTES: Final = re.compile(r'[\s"=]|^$')
_HIDDEN: Final = "(not shown)"
_TEXT_MAX: Final = 8192  # characters of one value; a peer may choose some of them
# What a log record has anyway; what else it has came with `extra` and is a field.
_ATTRIBUTES: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "fields"}
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Logger:
    """Writes events of one name. Cheap to make; when the level is off a call costs one comparison and its arguments."""

    __slots__ = ("_log",)

    def __init__(self, name: str) -> None:
        self._log: Final = logging.getLogger(name)

    def debug(self, event: str, /, **fields: Any) -> None:
        """For who looks for a defect."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """What an operator wants to know afterwards."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """What an operator should look at some time."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """What an operator must look at. A field that is an exception is written as its type and message."""
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """As error, with the traceback of the exception that is being handled."""
        self._write(logging.ERROR, event, fields, exc_info=True)

    def _write(self, level: int, event: str, fields: Mapping[str, Any], exc_info: bool = False) -> None:
        if self._log.isEnabledFor(level):
            # Without % of its own the event stays as it is: there are no arguments.
            self._log.log(level, event, extra={"fields": fields}, exc_info=exc_info, stacklevel=3)


def get_logger(name: str) -> Logger:
    """The logger of that name; by custom the module's package, such as "bitactor.ingest"."""
    return Logger(name)


def setup(level: str = "info", format: str | None = None, *, stream: TextIO | None = None) -> None:
    """Write log lines of this process to the stream (standard error). A later call replaces an earlier one.

    level: "debug", "info", "warning", "error". format: "json", "text", or None: text at a terminal, else json.
    Exceptions that end a thread and warnings become log lines too.
    """
    stream = sys.stderr if stream is None else stream
    as_text = format == "text" or (format is None and stream.isatty())
    handler = _Handler(stream, as_text=as_text)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        if isinstance(old, _Handler):
            old.close()
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
    # A line for every request is what /metrics counts already.
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if level == "debug" else logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.INFO if level == "debug" else logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended


def _thread_ended(what: threading.ExceptHookArgs) -> None:
    if issubclass(what.exc_type, SystemExit):
        return
    value = what.exc_value if what.exc_value is not None else what.exc_type()
    logging.getLogger("bitactor").error(
        "a thread ended with an exception",
        extra={"fields": {"thread": what.thread.name if what.thread else "?"}},
        exc_info=(what.exc_type, value, what.exc_traceback),
    )


class _Handler(logging.Handler):
    """Writes lines to a stream, few for repeats. A stream that has gone is not an error of who logs."""

    def __init__(self, stream: TextIO, *, as_text: bool) -> None:
        super().__init__()
        self._stream = stream
        self._as_text: Final = as_text
        self._repeats: Final = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        try:
            self._tell_counts(all=False)
            # Lines of other libraries vary in their arguments: their template is the event that repeats.
            held_back = self._repeats.admit((record.name, record.levelno, str(record.msg)))
            if held_back is None:
                return
            fields = _fields_of(record)
            if held_back:
                fields["repeats"] = held_back
            self._line(record.created, record.levelname, record.name, record.getMessage(), fields)
        except Exception:  # noqa: BLE001
            if not self._stream.closed:
                self.handleError(record)

    def close(self) -> None:
        """Tell what was held back; at the end of the process logging calls this."""
        self.acquire()
        try:
            self._tell_counts(all=True)
        except (OSError, ValueError):
            pass  # the stream is closed
        finally:
            self.release()
        super().close()

    def _tell_counts(self, *, all: bool) -> None:
        for (name, level, event), count in self._repeats.over(all=all):
            self._line(datetime.now(UTC).timestamp(), logging.getLevelName(level), name, event, {"repeats": count})

    def _line(self, created: float, level: str, name: str, event: str, fields: Mapping[str, Any]) -> None:
        write = as_text_line if self._as_text else as_json_line
        self._stream.write(write(created, level.lower(), name, event, fields) + "\n")
        self._stream.flush()


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: value for name, value in vars(record).items() if name not in _ATTRIBUTES}
    fields |= getattr(record, "fields", {})
    if record.exc_info and record.exc_info[1] is not None:
        fields.setdefault("error", record.exc_info[1])
        fields["traceback"] = _traceback(record.exc_info[1], record.exc_info[2])
    return fields


def _traceback(error: BaseException, trace: TracebackType | None) -> str:
    import traceback

    return "".join(traceback.format_exception(type(error), error, trace))


def as_json_line(created: float, level: str, name: str, event: str, fields: Mapping[str, Any]) -> str:
    """One JSON object without line breaks. A field whose name is taken gets an underscore behind it."""
    line: dict[str, Any] = {"ts": _time(created), "level": level, "logger": name, "event": _clean(event)}
    for key, value in fields.items():
        taken = key in _RESERVED and key != "repeats"
        line[f"{key}_" if taken else key] = _plain(key, value)
    return json.dumps(line, ensure_ascii=False)


def as_text_line(created: float, level: str, name: str, event: str, fields: Mapping[str, Any]) -> str:
    """One line for people: time, level, event, fields, logger; the lines of a traceback follow."""
    parts = []
    for key, value in fields.items():
        if key == "traceback":
            continue
        plain = _plain(key, value)
        bare = isinstance(plain, str) and not _NEEDS_QUOTES.search(plain)
        parts.append(f"{key}={plain if bare else json.dumps(plain, ensure_ascii=False)}")
    told = " ".join([_time(created)[11:23], f"{level:7}", _escaped(_clean(event)), *map(_escaped, parts), f"[{name}]"])
    return told + "".join(f"\n  {_escaped(line)}" for line in _clean(fields.get("traceback", "")).splitlines())


def _time(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _plain(key: str, value: Any) -> Any:
    """A value as JSON has it, without secrets and without end."""
    if _SECRET_NAME.search(key) and not _NAME_OF_NO_SECRET.search(key):
        return _HIDDEN
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, BaseException):
        return _clean(f"{type(value).__name__}: {value}")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping):
        return {str(name): _plain(str(name), one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(key, one) for one in value]
    return _clean(str(value))


def _clean(text: str) -> str:
    """The text without what looks like a secret, and not longer than a line may be."""
    text = _SECRET_TEXT.sub(rf"\g<before>{_HIDDEN}", text)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}… ({len(text)} characters)"


def _escaped(text: str) -> str:
    """The text with control characters visible, so that no peer can forge lines or drive a terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
