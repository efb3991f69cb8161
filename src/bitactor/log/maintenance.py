"""What an operator does to a data directory: look, verify, compact, back up, restore. Each call is one thread's.

inspect, verify and backup read beside a running service; compact and restore want the directory for themselves.
A backup is a data directory of its own (log.sqlite and snapshots/), as a folder or as one .tar file. Its records are
copied one by one, each checked, and not by SQLite's backup: that one starts over whenever the writing process commits.
"""

import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from bitactor.log import database
from bitactor.log.check import HEADER
from bitactor.log.contract import CorruptionError, End, First, FormatError, LogError, RemovedError
from bitactor.log.disk import DISK, make_directories
from bitactor.log.reader import LogReader
from bitactor.log.snapshots import SnapshotStore, load
from bitactor.log.sqlite import SqliteLog

SNAPSHOTS: Final = "snapshots"  # the folder in a data directory
_TRIES: Final = 5  # of a backup whose first records went away meanwhile

Progress = Callable[[int, int], None]  # records done, records in all


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot. problem: None when every byte is good."""

    path: Path
    bytes: int
    sequence: int
    position: int | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a data directory holds. wal_bytes: not yet in the file."""

    path: Path
    format: int
    first: First
    end: End
    file_bytes: int
    wal_bytes: int
    snapshots: list[SnapshotFile]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and in sentences what was found wrong: nothing, hopefully."""

    first: First
    end: End
    records: int
    bytes: int
    signals: int
    snapshots: int
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Copy:
    """A backup or what was restored from one."""

    path: Path
    first: First
    end: End
    snapshots: int
    bytes: int


def inspect(directory: Path | str) -> Inspection:
    """Where the log begins and ends, sizes, snapshots (each loaded and so checked). FormatError, CorruptionError."""
    reader = LogReader(directory)
    first, end = reader.extent()
    wal = reader.path.with_name(f"{database.FILE}-wal")
    return Inspection(
        path=reader.path,
        format=database.FORMAT,
        first=first,
        end=end,
        file_bytes=reader.path.stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
        snapshots=[_snapshot(path) for path in _snapshots(directory)],
    )


def verify(directory: Path | str, progress: Progress | None = None) -> Verification:
    """Read every record and every snapshot, and let SQLite check its pages. Goes on behind what is wrong."""
    reader = LogReader(directory)
    first, end = reader.extent()
    problems = [f"{reader.path}: {said}" for said in reader.pages_are_whole()]
    records = size = signals = 0
    at = first.sequence
    while at < end.sequence:
        try:
            for record in reader.read(at, end.sequence):
                records, size, at = records + 1, size + len(record), at + 1
                signals += HEADER.unpack_from(record)[8]
                if progress is not None and records % 64 == 0:
                    progress(at - first.sequence, end.sequence - first.sequence)
        except RemovedError:  # by the service's retention, while this went on
            at = reader.first().sequence
        except CorruptionError as error:
            problems.append(str(error))
            at += 1
    snapshots = [_snapshot(path) for path in _snapshots(directory)]
    for each in snapshots:
        if each.problem is not None:
            problems.append(each.problem)
        elif each.sequence > reader.end().sequence:
            problems.append(f"{each.path} is of record {each.sequence}; the log ends with {reader.end().sequence}")
    first = reader.first()
    oldest = min((each.sequence for each in snapshots if each.problem is None), default=0)
    if first.sequence > oldest:
        problems.append(f"{reader.path} begins with record {first.sequence}; a good snapshot covers only {oldest}")
    return Verification(first, end, records, size, signals, len(snapshots), problems)


def compact(directory: Path | str) -> tuple[Inspection, Inspection]:
    """Remove the records before the oldest good snapshot and give free pages back. (before, after).

    LogLockedError while a service has the directory: its own retention does the first part.
    """
    before = inspect(directory)
    log = SqliteLog.open(directory)
    try:
        good = [each.sequence for each in before.snapshots if each.problem is None]
        if good:
            log.truncate_before(min(*good, log.end().sequence))
        while log.tidy():
            pass
        while log.release_free():
            pass
    finally:
        log.close()
    return before, inspect(directory)


def backup(directory: Path | str, target: Path | str, progress: Progress | None = None) -> Copy:
    """Copy the log up to now and the snapshots that it goes on from; a service may go on writing. Durable at the end.

    target: a folder that is not there yet, or a name that ends in .tar. FileExistsError, CorruptionError, OSError.
    """
    source, target = Path(directory), Path(target)
    if target.exists():
        raise FileExistsError(f"{target} is there already: name a new backup")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        first, end = _copy_all(source, partial, progress)
        snapshots = len(_snapshots(partial))
        _put(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Copy(target, first, end, snapshots, _size(target))


def restore(source: Path | str, directory: Path | str) -> Copy:
    """Make a data directory from a backup, a folder or a .tar, and verify all of it before it gets its name.

    FileExistsError when the directory is there already: nothing is ever overwritten. CorruptionError lists what is
    wrong with the backup; nothing is left then.
    """
    source, target = Path(source), Path(directory)
    if source.is_dir() and not (source / database.FILE).is_file():
        raise CorruptionError(source, f"no backup is here: it has no {database.FILE}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there and not empty: restore into a new data directory, then serve that")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if source.is_dir():
            shutil.copytree(source, partial, ignore=shutil.ignore_patterns("lock", "*-shm"))
        else:
            with tarfile.open(source) as archive:
                _unpack(archive, partial)
            if not (partial / database.FILE).is_file():
                raise CorruptionError(source, f"no backup is here: it has no {database.FILE}")
        SqliteLog.open(partial).close()
        found = verify(partial)
        if found.problems:
            raise CorruptionError(source, "; ".join(found.problems))
        _put(partial, target)
    except tarfile.TarError as error:
        raise CorruptionError(source, f"it is no whole .tar file: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Copy(target, found.first, found.end, found.snapshots, _size(target))


def _unpack(archive: tarfile.TarFile, target: Path) -> None:
    """Files and folders of a .tar, below target and nowhere else; TarError for what else is in it.

    The filters of extractall, which would do it, are not in every Python 3.11.
    """
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if not (member.isdir() or member.isreg()) or member.name.startswith("/") or ".." in parts:
            raise tarfile.TarError(f"{member.name[:100]!r} is no file of a backup")
        path = target.joinpath(*parts)
        (path if member.isdir() else path.parent).mkdir(parents=True, exist_ok=True)
        if member.isreg():
            packed = archive.extractfile(member)
            assert packed is not None  # it is a regular file
            with packed, path.open("xb") as file:
                shutil.copyfileobj(packed, file)
            path.chmod(member.mode & 0o755)


def _snapshots(directory: Path | str) -> list[Path]:
    return SnapshotStore(Path(directory) / SNAPSHOTS).latest()


def _snapshot(path: Path) -> SnapshotFile:
    size = path.stat().st_size if path.exists() else 0
    try:
        meta = load(path).meta
    except (CorruptionError, FormatError, OSError) as error:
        return SnapshotFile(path, size, int(path.stem), None, str(error))
    return SnapshotFile(path, size, int(path.stem), meta.get("position"), None)


def _copy_all(source: Path, target: Path, progress: Progress | None) -> tuple[First, End]:
    """Copy snapshots, then the log; once more from the start when retention took what was to be copied."""
    gone: Exception | None = None
    for _ in range(_TRIES):
        shutil.rmtree(target, ignore_errors=True)
        make_directories(target / SNAPSHOTS)
        try:
            for path in _snapshots(source):
                load(path)
                shutil.copyfile(path, target / SNAPSHOTS / path.name)
                load(target / SNAPSHOTS / path.name)
            return _copy_log(LogReader(source), target, progress)
        except (RemovedError, FileNotFoundError) as error:
            gone = error
    raise LogError(f"{source} changed faster than it could be copied, {_TRIES} times: {gone}") from gone


def _copy_log(reader: LogReader, target: Path, progress: Progress | None) -> tuple[First, End]:
    first, end = reader.extent()
    log = SqliteLog.open(target, durability="off")
    try:
        if first.sequence:
            log.start_at(End(first.sequence, first.position, 0))
        for record in reader.read(first.sequence, end.sequence):
            _, _, _, _, sequence, position, wall_ns, _, count, *_ = HEADER.unpack_from(record)
            log.append(record, sequence=sequence, position=position, count=count, wall_ns=wall_ns)
            log.tidy()
            if progress is not None and sequence % 64 == 0:
                progress(sequence - first.sequence, end.sequence - first.sequence)
        return log.first(), log.end()
    finally:
        log.close()
        (target / "lock").unlink()


def _put(partial: Path, target: Path) -> None:
    """Give the finished folder its name, durably; as a .tar when the name says so."""
    for path in sorted(partial.rglob("*")):
        _sync(path)
    if target.suffix == ".tar":
        archive_path = partial / "archive"
        with tarfile.open(archive_path, "w") as archive:
            for name in (database.FILE, SNAPSHOTS):
                archive.add(partial / name, name)
        _sync(archive_path)
        archive_path.rename(target)
    else:
        _sync(partial)
        if target.exists():
            target.rmdir()
        partial.rename(target)
    DISK.sync_directory(target.absolute().parent)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(each.stat().st_size for each in path.rglob("*"))
