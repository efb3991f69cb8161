"""The data directory, had by one process at a time. Any thread."""

import fcntl
import os
import socket
from pathlib import Path

from bitactor.log.contract import LogLockedError


class DirectoryLock:
    """Holds a directory until release() or the process's end, by flock on its file `lock`.

    Copies of the process made by fork would hold it too; nothing here forks. Network file systems may not keep it.
    """

    def __init__(self, directory: Path) -> None:
        """LogLockedError, naming the holder, when another has it, or when `lock` is a link to something else."""
        path = directory / "lock"
        if path.is_symlink():  # what it leads to would be overwritten
            raise LogLockedError(f"{path} is a symbolic link: remove it; it is to be a file of this directory")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 200, 0).decode(errors="replace").strip() or "a process that did not say"
            os.close(self._file)
            raise LogLockedError(
                f"{directory} is in use by {holder}: stop that process first, or give this one another data directory"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Let the directory go. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
