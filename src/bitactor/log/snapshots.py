"""Snapshot files: named sections of bytes at a position of the log, each with its CRC (format: docs/log.md).

Bytes plus a schema in `meta`, never actors. One thread writes; any thread loads. A file is written beside its name,
synced and then renamed, so what has a snapshot's name is whole, unless the disk damaged it: loading checks every byte.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bitactor import faults
from bitactor._core._codec import crc32c
from bitactor.log.contract import CorruptionError, FormatError
from bitactor.log.disk import DISK, Disk, make_directories

if TYPE_CHECKING:
    from typing_extensions import Buffer

VERSION: Final = 1
ALIGN: Final = 64  # sections begin at multiples of it
META_BYTES_MAX: Final = 16 << 20
SUFFIX: Final = ".snapshot"
_HEADER: Final = struct.Struct(">4sHHII")  # "BAS1", version, flags 0, length of meta, CRC of this and meta
_SECTION: Final = struct.Struct(
    ">4sHHQII"
)  # "SECT", length of name, flags 0, length, CRC of the bytes, of this and name
_FOOTER: Final = struct.Struct(">4sIQII40x")  # "BASE", sections, length of the file, CRC of the CRCs, CRC of this
_PIECE: Final = 4 << 20  # written, or read and checked, at once
_SYNC_BYTES: Final = 32 << 20  # synced each time so much is written: unwritten bytes in memory are bounded


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A loaded snapshot. sections: views of the mapped file, in the order written; they keep it mapped."""

    path: Path
    meta: dict[str, Any]
    sections: dict[str, memoryview]


class SnapshotStore:
    """The snapshots in a directory, named by `meta["sequence"]`: the log's next record when they were taken."""

    def __init__(self, directory: Path | str, keep: int = 2, disk: Disk = DISK) -> None:
        """Made with the first snapshot. keep: how many to have, from 1; 2 or more leave one to fall back to."""
        if keep < 1:
            raise ValueError(f"snapshot.keep is {keep}: 1 at least")
        self.directory = Path(directory)
        self.keep = keep
        self._disk = disk

    def latest(self) -> list[Path]:
        """The snapshots, newest first; not checked."""
        found = [path for path in self.directory.glob(f"*{SUFFIX}") if path.stem.isdecimal()]
        return sorted(found, key=lambda path: int(path.stem), reverse=True)

    def write(self, meta: Mapping[str, Any], sections: "Iterable[tuple[str, Buffer]]") -> Path:
        """Write a snapshot and return its path when it is durable; then older ones but `keep` are removed.

        meta: JSON-able, its `sequence` an int; sections: names, each once, with C-contiguous buffers, asked for one by
        one. Waits for the disk. OSError when it refuses: what was there before still is. ValueError for bad arguments.
        """
        path = self.directory / f"{_sequence_of(meta):020d}{SUFFIX}"
        writing = path.with_suffix(".tmp")
        make_directories(self.directory, self._disk)
        for left in self.directory.glob("*.tmp"):  # of a process that was killed
            self._disk.remove(left)
        faults.point("snapshot.begun")
        writer = _Writer(self._disk, self._disk.create(writing))
        try:
            try:
                writer.header(meta)
                for name, buffer in sections:
                    writer.section(name, buffer)
                writer.footer()
                faults.point("snapshot.written")
                self._disk.sync(writer.file)
            finally:
                self._disk.close(writer.file)
            faults.point("snapshot.synced")
            self._disk.rename(writing, path)
        except BaseException:
            self._disk.remove(writing)
            raise
        faults.point("snapshot.renamed")
        self._disk.sync_directory(self.directory)
        for old in self.latest()[self.keep :]:
            self._disk.remove(old)
        faults.point("snapshot.done")
        return path

    def load(self, path: Path) -> Snapshot:
        """Read and check every byte of a snapshot, then map it. CorruptionError, FormatError, OSError."""
        return load(path)

    def newest(self) -> tuple[Snapshot | None, list[Exception]]:
        """The newest snapshot that loads, or None, and what was wrong with each newer one."""
        problems: list[Exception] = []
        for path in self.latest():
            try:
                return load(path), problems
            except (CorruptionError, FormatError, OSError) as error:
                problems.append(error)
        return None, problems


def _sequence_of(meta: Mapping[str, Any]) -> int:
    sequence = meta.get("sequence")
    if not isinstance(sequence, int) or not 0 <= sequence < 1 << 64:
        raise ValueError(f"meta['sequence'] is {sequence!r}: it must be the sequence of the log's next record")
    return sequence


def _padding(length: int) -> bytes:
    return bytes(-length % ALIGN)


class _Writer:
    """Writes the parts of a file in their order."""

    def __init__(self, disk: Disk, file: int) -> None:
        self.file = file
        self._disk = disk
        self._length = self._unsynced = 0
        self._names: set[str] = set()
        self._crcs = b""

    def _write(self, *parts: "Buffer") -> None:
        """Write the parts and then zeros up to a multiple of ALIGN."""
        for part in parts:
            view = memoryview(part).cast("B")
            for at in range(0, len(view), _PIECE):
                piece = view[at : at + _PIECE]
                self._disk.write(self.file, piece)
                self._length += len(piece)
                self._unsynced += len(piece)
                if self._unsynced >= _SYNC_BYTES:
                    self._disk.sync(self.file)
                    self._unsynced = 0
        if self._length % ALIGN:
            self._write(_padding(self._length))

    def header(self, meta: Mapping[str, Any]) -> None:
        text = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        if len(text) > META_BYTES_MAX:
            raise ValueError(f"a snapshot's meta takes {len(text)} bytes; {META_BYTES_MAX} is the most")
        begin = _HEADER.pack(b"BAS1", VERSION, 0, len(text), 0)[:-4]
        self._crcs = crc32c(text, crc32c(begin)).to_bytes(4, "big")
        self._write(begin + self._crcs + text)

    def section(self, name: str, buffer: "Buffer") -> None:
        if name in self._names:
            raise ValueError(f"section {name!r} comes twice")
        self._names.add(name)
        given, title = memoryview(buffer), name.encode()
        view = given.cast("B") if given.nbytes else memoryview(b"")  # an array of no rows has no cast
        begin = _SECTION.pack(b"SECT", len(title), 0, len(view), crc32c(view), 0)[:-4]
        crc = crc32c(title, crc32c(begin)).to_bytes(4, "big")
        self._crcs += crc
        self._write(begin + crc + title)
        self._write(view)

    def footer(self) -> None:
        begin = _FOOTER.pack(b"BASE", len(self._names), self._length + _FOOTER.size, crc32c(self._crcs), 0)[:20]
        self._write(begin + crc32c(begin).to_bytes(4, "big") + bytes(40))


class _Reader:
    """Reads the parts of a file in their order and checks each before it is used."""

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file = file
        self.size = os.fstat(file).st_size
        self.at = 0
        self._crcs = b""
        self.names: set[str] = set()

    def bad(self, offset: int, message: str) -> CorruptionError:
        return CorruptionError(self.path, message, offset=offset)

    def _take(self, length: int, what: str) -> bytes:
        data = os.pread(self._file, length, self.at) if length <= self.size - self.at else b""
        if len(data) != length:
            raise self.bad(self.at, f"it ends within {what}")
        self.at += length
        return data

    def _take_padding(self) -> None:
        if any(self._take(-self.at % ALIGN, "padding")):
            raise self.bad(self.at - 1, "its padding is not zeros")

    def header(self) -> dict[str, Any]:
        begin = self._take(_HEADER.size, "its header")
        magic, version, _, length, crc = _HEADER.unpack(begin)
        if magic != b"BAS1":
            raise self.bad(0, f"it begins with {magic!r}: this is no snapshot")
        if version > VERSION:
            raise FormatError(
                f"{self.path} has snapshot format {version}; this program knows up to {VERSION}: use the program that "
                "wrote it, or a newer one"
            )
        text = self._take(min(length, META_BYTES_MAX + 1), "meta")
        if length > META_BYTES_MAX or crc32c(text, crc32c(begin[:-4])) != crc:
            raise self.bad(0, "the CRC of its header and meta does not match")
        self._crcs = begin[-4:]
        self._take_padding()
        try:
            meta = json.loads(text)
        except ValueError as error:  # not UTF-8, or not JSON: written by something else, with the right CRC
            raise self.bad(_HEADER.size, f"its meta is no JSON: {error}") from error
        if not isinstance(meta, dict):
            raise self.bad(_HEADER.size, "its meta is no JSON object")
        return meta

    def section(self) -> tuple[str, int, int] | None:
        """(name, offset, length) of the next section, checked; None at the footer."""
        start = self.at
        begin = self._take(_SECTION.size, "a section's header")
        magic, title_length, _, length, crc, head_crc = _SECTION.unpack(begin)
        if magic == b"BASE":
            self.at = start
            return None
        title = self._take(title_length, "a section's name")
        if magic != b"SECT" or crc32c(title, crc32c(begin[:-4])) != head_crc:
            raise self.bad(start, "a section's header is damaged")
        self._crcs += begin[-4:]
        self._take_padding()
        try:
            name, offset, found = title.decode(), self.at, 0
        except UnicodeDecodeError as error:
            raise self.bad(start, f"a section's name is no text: {error}") from error
        if length > self.size - self.at:
            raise self.bad(start, f"it ends within section {name!r}")
        for piece in range(offset, offset + length, _PIECE):
            found = crc32c(self._take(min(_PIECE, offset + length - piece), f"section {name!r}"), found)
        if found != crc:
            raise self.bad(offset, f"the CRC of section {name!r} does not match")
        self._take_padding()
        self.names.add(name)
        return name, offset, length

    def footer(self) -> None:
        start = self.at
        end = self._take(_FOOTER.size, "its footer")
        _, sections, length, crc, own_crc = _FOOTER.unpack(end)
        if crc32c(end[:20]) != own_crc or any(end[24:]):
            raise self.bad(start, "its footer is damaged")
        if sections != len(self.names) or length != self.size or crc32c(self._crcs) != crc:
            raise self.bad(start, "its footer belongs to other sections: some are missing, or more follow")


def load(path: Path) -> Snapshot:
    """Read and check every byte of a snapshot, then map it. CorruptionError, FormatError, OSError.

    Checked by reading, so that a disk that cannot read gives an error and not a signal, as a mapped page would.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        reader = _Reader(path, file)
        meta = reader.header()
        places = list(iter(reader.section, None))
        reader.footer()
        view = memoryview(mmap.mmap(file, 0, prot=mmap.PROT_READ))
    finally:
        os.close(file)
    return Snapshot(path, meta, {name: view[offset : offset + length] for name, offset, length in places})
