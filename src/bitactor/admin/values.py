"""Values and rows as JSON, in pieces, so that no piece holds the interpreter long. Any thread.

Numbers are as they are; NaN and infinities, which JSON lacks, are the texts "NaN", "Infinity" and "-Infinity". Readers
whose numbers are doubles, such as browsers, ask for 64-bit integers as texts.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

PIECE: Final = 256  # rows


def plain(value: Any, *, as_text: bool = False) -> Any:
    """A value as JSON has it. as_text: integers as texts."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return str(value) if as_text or not -(1 << 64) < value < 1 << 64 else value
    if isinstance(value, (list, tuple)):
        return [plain(one, as_text=as_text) for one in value]
    if isinstance(value, dict):
        return {str(name): plain(one, as_text=as_text) for name, one in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def json_pieces(head: Mapping[str, Any], rows: Iterator[list[list[Any]]]) -> Iterator[bytes]:
    """A JSON object with the members of `head` and then "rows", piece by piece."""
    yield json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"rows":['
    first = True
    for piece in rows:
        if piece:
            text = json.dumps(piece, separators=(",", ":"), allow_nan=False)[1:-1]
            yield ("" if first else ",").encode() + text.encode()
            first = False
    yield b"]}"
