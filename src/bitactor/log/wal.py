"""Damage inside SQLite's WAL, which SQLite itself takes for its end. Pure but for reading the file; one thread.

Recovery stops at the first frame whose checksum does not match, as it must: after power loss the last transaction may
be there in part. But where every commit was synced before the next began, only the last transaction may be. So a
commit behind the place where SQLite stopped, with more of the same WAL behind it, says that synced bytes were changed.

Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log: a header of 32 bytes (salts at 16), then frames:
page number, size after a commit (0: not the last frame of one), salts, checksums, the page.
"""

import struct
from pathlib import Path
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">16s8sII")  # magic .. checkpoint number, salts, two checksums
_FRAME: Final = struct.Struct(">4xI8s8x")


class Frame(NamedTuple):
    """What tells where a frame belongs."""

    salts: bytes
    commits: bool


def frames(path: Path, page_bytes: int) -> tuple[bytes, list[Frame]]:
    """The salts of a WAL, and its frames, whole or not. Empty when there is none."""
    found = []
    try:
        with path.open("rb", buffering=0) as file:
            header = file.read(_HEADER.size)
            while len(head := file.read(_FRAME.size)) == _FRAME.size:
                size, own = _FRAME.unpack(head)
                found.append(Frame(own, size > 0))
                file.seek(page_bytes, 1)
    except FileNotFoundError:
        return b"", []
    if not found:
        return b"", []
    return header[16:24] if _is_whole(header) else found[0].salts, found


def _is_whole(header: bytes) -> bool:
    """Whether the header's checksum is right."""
    order = ">" if header[3] & 1 else "<"
    one = two = 0
    for left, right in struct.iter_unpack(f"{order}II", header[:24]):
        one = (one + left + two) & 0xFFFFFFFF
        two = (two + right + one) & 0xFFFFFFFF
    return (one, two) == _HEADER.unpack(header)[2:]


def damaged_after(salts: bytes, found: list[Frame], valid: int) -> bool:
    """Whether a synced commit lies behind the `valid` frames that SQLite recovered. Not for a WAL written unsynced."""
    own = [frame.commits for frame in found[max(valid, 0) :] if frame.salts == salts]
    return any(own[:-1])
