"""Defects of everything else: HTTP, SQL, the service's log lines, settings, files that are read."""

import os
from pathlib import Path
from typing import Any

from bitactor.validation.adversarial.variants.plant import defect, module


@defect("the Host of a request is not checked", "http.foreign_host")
def host_unchecked() -> None:
    """Plant it."""
    module("admin.access")._host = lambda header: "localhost"


@defect("a page of another site may change something", "http.foreign_origin")
def origin_unchecked() -> None:
    """Plant it."""
    module("admin.access")._SAFE = {"GET", "HEAD", "OPTIONS", "POST"}


@defect("what changes something needs only the right to read", "access.changes_by_a_reader")
def admin_right_unchecked() -> None:
    """Plant it."""
    access = module("admin.access")
    original = access.Access.require
    access.Access.require = lambda self, headers, right: original(self, headers, min(right, access.Right.READ))


@defect("lines of a request's head may end with a bare line feed", "http.bare_line_feeds")
def bare_line_feeds_taken() -> None:
    """Plant it."""
    server = module("admin.server")._Bounded
    server.handle_events = lambda self: super(server, self).handle_events()


@defect("SQL is run as it comes, by a database that reaches files", "http.sql_reads_files")
def sql_unchecked() -> None:
    """Plant it, also in the process that runs a query: that is a program of its own."""
    import asyncio

    import duckdb

    query, process = module("admin.query"), module("admin.query_process")
    process.check = lambda connection, sql, known: ([], False)
    process.connect = lambda memory_bytes: duckdb.connect(":memory:")
    name = process.__name__
    again = (
        f"from {__name__} import sql_unchecked; sql_unchecked(); import sys; "
        f"sys.modules['{name}'].serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))"
    )

    class Weak:
        """asyncio, but for how that process is started."""

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        @staticmethod
        async def create_subprocess_exec(program: str, *arguments: str, **given: Any) -> Any:
            return await asyncio.create_subprocess_exec(program, "-c", again, *arguments[3:], **given)

    query.asyncio = Weak()


@defect(
    "what peers say stands in the log as they said it",
    "injection.log_line_in_a_refused_hello",
    "injection.log_line_as_text",
)
def log_unescaped() -> None:
    """Plant it: each line is unescaped again before it is written."""
    handler = module("telemetry.logs")._Handler
    original = handler._line

    class Unescaped:
        """A stream that takes escapes back."""

        closed = False

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def write(self, text: str) -> None:
            for _ in range(3):  # quoted by repr, and once more by JSON
                text = text.replace("\\\\", "\\")
            self._stream.write(text.replace("\\r", "\r").replace("\\n", "\n").replace("\\x1b", "\x1b"))

        def flush(self) -> None:
            self._stream.flush()

    def line(self: Any, *given: Any) -> None:
        stream = self._stream
        self._stream = Unescaped(stream)
        try:
            original(self, *given)
        finally:
            self._stream = stream

    handler._line = line


@defect("tokens are written to the log", "secrets.in_the_log")
def token_logged() -> None:
    """Plant it."""
    session = module("ingest.session")
    original = session.Session._hello

    def hello(self: Any, message: Any) -> Any:
        session.log.info("hello of %r, who shows %s", message.producer, message.token.decode(errors="replace"))
        return original(self, message)

    session.Session._hello = hello


@defect("`config show` shows secrets", "secrets.in_config_show")
def secrets_shown() -> None:
    """Plant it."""
    show = module("cli.config")
    value_of = show.value_of

    def revealed(settings: Any, name: str) -> Any:
        value = value_of(settings, name)
        return value.get_secret_value() if hasattr(value, "get_secret_value") else value

    show.is_secret, show.value_of = lambda field: False, revealed


@defect("a private key that everybody can read is taken", "files.key_read_by_all")
def key_modes_unchecked() -> None:
    """Plant it."""
    module("config.load").check_files = lambda settings: iter(())


@defect("checksums of snapshots are ignored", "files.snapshot_damaged")
def snapshot_checksum_ignored() -> None:
    """Plant it: whatever is computed equals whatever is there."""

    class Equal(int):
        """Equal to every number."""

        __hash__ = int.__hash__

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    module("log.snapshots").crc32c = lambda data, crc=0: Equal(0)


@defect("compiled code is loaded through links, whatever its checksum", "loading.cached_code_changed")
def cache_believed() -> None:
    """Plant it."""
    cache = module("actors.cache")

    def load(name: str) -> bytes | None:
        path = cache.directory()
        if path is None or not (path / name).exists():
            return None
        data: bytes = (path / name).read_bytes()
        return data[len(cache._MAGIC) + 32 :]

    cache.load = load


@defect("a lock file is opened through a symbolic link", "files.lock_is_a_link")
def symlink_followed() -> None:
    """Plant it."""
    directory = module("log.directory")
    made = directory.DirectoryLock.__init__

    class Blind:
        """os, but for opening, which follows links."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        @staticmethod
        def open(path: Any, flags: int, mode: int = 0o777) -> int:
            return os.open(str(path), flags & ~os.O_NOFOLLOW, mode)

    class Followed(type(Path())):  # type: ignore[misc]
        """A path that never is a link."""

        def is_symlink(self) -> bool:
            return False

    directory.os = Blind()
    directory.DirectoryLock.__init__ = lambda self, path: made(self, Followed(path))


@defect("pickles in .npy files are loaded", "loading.pickle_in_npy")
def pickle_loaded() -> None:
    """Plant it."""
    files = module("client.files")
    numpy = files.np

    class Lenient:
        """NumPy, but for its load."""

        def __getattr__(self, name: str) -> Any:
            return getattr(numpy, name)

        @staticmethod
        def load(file: Any, **_: Any) -> Any:
            return numpy.load(file, allow_pickle=True)

    files.np = Lenient()
