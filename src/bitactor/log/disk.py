"""The few things done to files beside SQLite's own, so that tests can record them or make them fail. Any thread.

A `Disk` is passed to whoever writes; each method raises OSError as the system gives it.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 20


class Disk:
    """The real disk. Descriptors are the caller's to close."""

    def create(self, path: Path) -> int:
        """Make a new file, for its owner alone, and give a descriptor to write to; FileExistsError."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, file: int, data: memoryview) -> None:
        """Write all of it at the descriptor's end."""
        while len(data):
            data = data[os.write(file, data) :]

    def sync(self, file: int) -> None:
        """Make what was written durable."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Let the descriptor go."""
        os.close(file)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name in its directory, in one step; what had that name is gone."""
        old.rename(new)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def rewrite(self, path: Path) -> None:
        """Write a file's bytes again, over themselves, and sync them; nothing if it is not there.

        After a failed sync the page cache shows bytes that the disk lacks and the kernel believes to be written. Only
        writing them again makes them durable.
        """
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            at = 0
            while data := os.pread(file, _PIECE, at):
                at += os.pwrite(file, data, at)
            os.fsync(file)
        finally:
            os.close(file)

    def make_directory(self, path: Path) -> None:
        """Make one directory, for its owner alone, unless it is there."""
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


DISK = Disk()


def make_directories(path: Path, disk: Disk = DISK) -> None:
    """Make a directory and its missing parents, each durable in its own parent."""
    missing = []
    at = path.absolute()
    while not at.exists():
        missing.append(at)
        at = at.parent
    for each in reversed(missing):
        disk.make_directory(each)
        disk.sync_directory(each.parent)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a directory: name one, or a path where one can be made")
