"""HandlerError: what is wrong in a handler, at which file and line, and what to write instead."""

import linecache


class HandlerError(TypeError):
    """A handler that cannot be compiled. filename and lineno say where; the message says what to write instead."""

    def __init__(self, message: str, filename: str, lineno: int) -> None:
        self.filename = filename
        self.lineno = lineno
        self.reason = message
        text = linecache.getline(filename, lineno).strip()
        super().__init__(f"{filename}:{lineno}: {message}" + (f"\n    {text}" if text else ""))
